//! Which documents `iptables-restore` may be given.

use super::Refusal;
use crate::epok;
use crate::iptables::layout::{FILTER, JUMPS, NAT};
use crate::iptables::listing::leads_to_ours;
use crate::iptables::reading::{is_chain, may_stand, rule};
use crate::iptables::words;
use crate::label::excerpt;

pub(super) fn check(program: &'static str, document: &str) -> Result<(), Refusal> {
    let mut table: Option<&str> = None;
    for (index, line) in document.lines().enumerate() {
        let fits = match (table, line) {
            (None, "*nat") => {
                table = Some(NAT);
                true
            }
            (None, "*filter") => {
                table = Some(FILTER);
                true
            }
            (Some(_), "COMMIT") => {
                table = None;
                true
            }
            (Some(name), line) => is_ours(name, line),
            (None, _) => false,
        };
        if !fits {
            let line = excerpt(line, 200);
            return Err(Refusal::Line { program, number: index + 1, line });
        }
    }
    if table.is_some() { Err(Refusal::Unfinished(program)) } else { Ok(()) }
}

fn is_ours(table: &str, line: &str) -> bool {
    if let Some(declared) = line.strip_prefix(':') {
        return declared.strip_suffix(" - [0:0]").is_some_and(is_chain);
    }
    let Some((verb, rest)) = line.split_once(' ') else { return false };
    let (chain, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let jump = |first: bool, text: &str| {
        JUMPS
            .iter()
            .any(|it| it.table == table && it.from == chain && it.rule == text && it.first == first)
    };
    match verb {
        "-X" => text.is_empty() && is_chain(chain),
        "-A" if is_chain(chain) => may_stand(table, chain, text),
        "-A" => jump(false, text),
        "-I" => {
            let Some((number, text)) = text.split_once(' ') else { return false };
            let numbered = number.parse::<u32>().is_ok_and(|it| it > 0);
            match is_chain(chain) {
                true => numbered && may_stand(table, chain, text),
                false => number == "1" && jump(true, text),
            }
        }
        "-D" if is_chain(chain) => rule(text).is_some(),
        "-D" if !is_plain(chain) || chain.contains('"') => false,
        "-D" => is_plain(text) && (leads_to_ours(text) || epok::is_marked(text)),
        _ => false,
    }
}

/// Whether every option of a rule of others is one that only describes packets. `--modprobe`, for
/// one, would start a program.
pub(crate) fn is_plain(text: &str) -> bool {
    const OPTIONS: [&str; 40] = [
        "-i",
        "-o",
        "-s",
        "-d",
        "-p",
        "-m",
        "-j",
        "-g",
        "--dport",
        "--sport",
        "--comment",
        "--dst-type",
        "--src-type",
        "--mode",
        "--every",
        "--packet",
        "--probability",
        "--ctstate",
        "--ctorigdstport",
        "--state",
        "--to-destination",
        "--to-ports",
        "--mark",
        "--dports",
        "--random",
        "--random-fully",
        "--persistent",
        "--tcp-flags",
        "--syn",
        "--ports",
        "--sports",
        "--limit",
        "--limit-burst",
        "--match-set",
        "--mac-source",
        "--src-range",
        "--dst-range",
        "--uid-owner",
        "--gid-owner",
        "--icmp-type",
    ];
    // No word is excused for standing where a value stands: `-i --comment --modprobe=x` gives
    // `-i` its value, and not `--comment`.
    words::split(text).is_some_and(|words| {
        words.iter().all(|it| !it.starts_with('-') || OPTIONS.contains(&it.as_str()))
    })
}
