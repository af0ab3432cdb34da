//! What the forced command could be asked to run by somebody who stole its key.
//!
//! The first line is a command line, one word to each blank; the rest is the input.
#![cfg_attr(fuzzing, no_main)]

use command::{Command, Program};
use firewall::guard;

const PROGRAMS: [Program; 11] = [
    Program::Nft,
    Program::Iptables,
    Program::Ip6tables,
    Program::IptablesSave,
    Program::Ip6tablesSave,
    Program::IptablesRestore,
    Program::Ip6tablesRestore,
    Program::Conntrack,
    Program::Ip,
    Program::Ss,
    Program::Sysctl,
];

/// What is permitted stays within our table and our chains, as told by readers that share nothing
/// with those of the guard; what is not is refused in one line.
pub(crate) fn law(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (line, stdin) = text.split_once('\n').unwrap_or((text, ""));
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let Some(program) = PROGRAMS.into_iter().find(|it| it.name() == name) else { return };
    let command = Command::new(program).args(words).stdin(stdin);
    if let Err(refusal) = guard::check(&command) {
        assert!(!refusal.to_string().contains(char::is_control), "more than a line: {refusal}");
        return;
    }
    match name {
        "nft" if stdin.is_empty() => {
            assert!(["nft -j list table inet portcullis", "nft -f -"].contains(&line), "{line}");
        }
        "nft" => {
            assert_eq!(line, "nft -f -");
            nft(stdin);
        }
        "iptables-restore" | "ip6tables-restore" => {
            assert_eq!(command.args, ["--noflush", "--wait"]);
            restore(stdin);
        }
        "iptables-save" | "ip6tables-save" => assert!(
            command.args.is_empty() || command.args == ["-t", "nat"],
            "it only reads: {line}"
        ),
        "ip" => assert_eq!(line, "ip -j addr show"),
        "ss" => assert_eq!(line, "ss -H -l -n -t -u"),
        "conntrack" => {
            assert!(line.starts_with("conntrack -D -f ipv"), "{line}");
            let narrow = ["--orig-port-dst", "--reply-src"].iter().any(|it| line.contains(it));
            assert!(narrow && !line.contains('/') && line.contains(" -p udp "), "{line}");
        }
        _ => panic!("never permitted: {line}"),
    }
}

/// Every statement names our table, and no word in it reaches out of it.
fn nft(document: &str) {
    const FOREIGN: [&str; 18] = [
        "include", "define", "undefine", "redefine", "flush", "import", "export", "reset",
        "monitor", "rename", "accept", "drop", "reject", "queue", "log", "redirect", "tproxy",
        "snat",
    ];
    let mut depth = 0_usize;
    for line in document.lines() {
        let line = line.trim_matches('\t');
        if depth == 0 {
            let ours = line == "table inet portcullis {"
                || ["add table", "delete table", "create chain", "delete chain", "flush chain"]
                    .iter()
                    .chain(&["create element", "delete element", "add rule"])
                    .any(|it| {
                        let rest = line.strip_prefix(&format!("{it} inet portcullis"));
                        rest.is_some_and(|it| it.is_empty() || it.starts_with(' '))
                    });
            assert!(ours, "{line:?}");
        }
        // Within quotes there are names and comments; outside there is syntax.
        let parts: Vec<_> = line.split('"').collect();
        assert!(parts.len() % 2 == 1, "quotes are closed: {line:?}");
        let hook = line.contains("hook ") && line.contains("; policy accept;");
        for (index, part) in parts.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || " -_./:,=+{}@[];".contains(c);
            assert!(part.chars().all(|c| plain(c) || index % 2 == 1 && c == '@'), "{line:?}");
            if index % 2 == 1 || hook {
                continue;
            }
            assert!(!part.contains(';'), "one statement a line: {line:?}");
            // The verb of `flush chain` is the only word of these that we write.
            let rest = part.strip_prefix("flush chain ").unwrap_or(part);
            let named = ["chain ", "goto "];
            let mut before = "";
            for word in rest.split([' ', ',', ';']) {
                let name = named.iter().any(|it| it.trim() == before)
                    || before == "portcullis"
                    || word.starts_with('@');
                assert!(name || !FOREIGN.contains(&word), "{word} in {line:?}");
                before = word;
            }
        }
        if line.ends_with('{') {
            depth += 1;
        } else if line == "}" {
            depth -= 1;
        }
    }
    assert_eq!(depth, 0);
}

/// Rules of others are only deleted, rules of ours only lead to addresses and to chains of ours,
/// and no word is an option that does more than describe a packet.
fn restore(document: &str) {
    const JUMPS: [&str; 4] = [
        "-A PREROUTING -j PORTCULLIS-PREROUTING",
        "-A OUTPUT -j PORTCULLIS-OUTPUT",
        "-A POSTROUTING -j PORTCULLIS-POSTROUTING",
        "-I FORWARD 1 -m conntrack --ctstate DNAT -j PORTCULLIS-FORWARD",
    ];
    for line in document.lines() {
        if ["*nat", "*filter", "COMMIT"].contains(&line) || JUMPS.contains(&line) {
            continue;
        }
        if let Some(chain) = line.strip_prefix(':') {
            assert!(chain.starts_with("PORTCULLIS-") && chain.ends_with(" - [0:0]"), "{line:?}");
            continue;
        }
        let words = words(line);
        let is = |at: usize, text: &str| words.get(at).is_some_and(|it| it == text);
        let ours = words.get(1).is_some_and(|it| it.starts_with("PORTCULLIS-"));
        assert!(ours || is(0, "-D"), "a rule of others is only deleted: {line:?}");
        // What getopt would take for an option or for its value.
        let mut words = words.iter().skip(2).peekable();
        let mut targets = 0;
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                continue;
            }
            let flag = ["--random", "--random-fully", "--persistent", "--syn"];
            if flag.contains(&word.as_str()) {
                continue;
            }
            assert!(!word.contains("modprobe") && !word.starts_with("-M"), "{line:?}");
            assert!(word.starts_with("--") || word.len() == 2, "{line:?}");
            let value = words.next().map(String::as_str).unwrap_or_default();
            if word == "--tcp-flags" {
                words.next();
            }
            if ["-j", "-g"].contains(&word.as_str()) {
                targets += 1;
                let known = ["DNAT", "MASQUERADE", "ACCEPT"].contains(&value);
                assert!(known || value.starts_with("PORTCULLIS-") || !ours, "{line:?}");
            }
        }
        // iptables refuses a second target itself; a rule of ours has none even to be refused.
        assert!(targets <= 1 || !ours, "{line:?}");
    }
}

/// Words as iptables-restore makes them (iptables 1.8.9, `add_param_to_argv`): a quotation mark
/// that closes ends the word, whatever comes next.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if quoted && escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' if quoted => {
                quoted = false;
                words.push(std::mem::take(&mut word));
            }
            _ if quoted => word.push(c),
            '"' => quoted = true,
            ' ' | '\t' | '\n' => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
