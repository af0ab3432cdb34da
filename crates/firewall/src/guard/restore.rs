//! Which documents `iptables-restore` may be given.

use super::Refusal;
use crate::epok;
use crate::iptables::layout::{ACCEPT, FILTER, FORWARD, JUMPS, MASQUERADE, NAT};
use crate::iptables::listing::leads_to_ours;
use crate::iptables::reading::{Target, is_chain, rule};
use crate::iptables::words;

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
            let line = line.chars().take(200).collect();
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
        "-D" => is_plain(text) && (leads_to_ours(text) || epok::is_marked(text)),
        _ => false,
    }
}

/// Whether a rule may stand in a chain. Accepting and masquerading have their own chains, so that
/// no rule of ours opens a host for anything but what it forwards.
fn may_stand(table: &str, chain: &str, text: &str) -> bool {
    let Some(rule) = rule(text) else { return false };
    match rule.target {
        Some(Target::Accept) => {
            let ours = match chain {
                FORWARD => rule.established,
                ACCEPT => rule.original_ports.is_some(),
                _ => false,
            };
            table == FILTER && ours
        }
        Some(Target::Masquerade) => {
            table == NAT && chain == MASQUERADE && rule.original_ports.is_some()
        }
        Some(Target::Translate(_)) => table == NAT,
        Some(Target::Jump(_) | Target::Goto(_)) => true,
        None => false,
    }
}

/// Whether every option of a rule of others is one that only describes packets. `--modprobe`, for
/// one, would start a program.
pub(crate) fn is_plain(text: &str) -> bool {
    const OPTIONS: [&str; 29] = [
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
    ];
    let Some(words) = words::split(text) else { return false };
    let mut comment = false;
    words.iter().all(|word| {
        let fits = comment || !word.starts_with('-') || OPTIONS.contains(&word.as_str());
        comment = word == "--comment" && !comment;
        fits
    })
}
