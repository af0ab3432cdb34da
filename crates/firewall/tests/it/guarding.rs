//! The list behind the forced command: everything that we produce passes, and nothing else does.

use std::collections::BTreeSet;

use command::{Command, Program};
use firewall::{Observed, conntrack, epok, guard, observe};
use planner::desired::Options;
use proptest::prelude::*;

use crate::laws::{BACKENDS, forwarding};

#[test]
fn every_reading_command_passes() {
    let options = Options { accept_forwarded: true, ..Options::default() };
    let listings = BACKENDS.iter().flat_map(|it| it.listing(options));
    for command in listings.chain([observe::addresses(), observe::listeners(), epok::listing()]) {
        assert_eq!(guard::check(&command), Ok(()));
    }
}

proptest! {
    #[test]
    fn every_plan_and_rollback_passes(old in forwarding(), new in forwarding()) {
        for backend in BACKENDS {
            let (old, new) = (backend.render(&old), backend.render(&new));
            let was = old.as_observed();
            let plan = backend.plan(&new, &was, &BTreeSet::new());
            let stale = conntrack::stale(&was, &new.as_observed(), &addresses());
            let cleanup = backend.cleanup(&was).commands();
            for command in
                plan.commands().iter().chain(&plan.rollback(&was)).chain(&stale).chain(&cleanup)
            {
                prop_assert_eq!(guard::check(command), Ok(()), "{}", command.stdin);
            }
        }
    }

    /// One foreign word, character or line anywhere in a document is noticed, or is one that
    /// leaves the document ours.
    #[test]
    fn a_document_with_something_foreign_is_refused(
        new in forwarding(), place in any::<prop::sample::Index>(),
        foreign in prop::sample::select(FOREIGN.to_vec()), inside in any::<bool>()
    ) {
        for backend in BACKENDS {
            let plan =
                backend.plan(&backend.render(&new), &Observed::default(), &BTreeSet::new());
            for mut command in plan.commands() {
                let mut lines: Vec<_> = command.stdin.lines().map(str::to_owned).collect();
                let index = place.index(lines.len());
                match inside {
                    true => lines[index] += foreign,
                    false => lines.insert(index, foreign.trim().to_owned()),
                }
                command.stdin = lines.join("\n") + "\n";
                prop_assert!(guard::check(&command).is_err(), "{}", command.stdin);
            }
        }
    }

    #[test]
    fn any_text_is_refused_without_a_panic(text in "(\\PC|\n|\t){0,200}") {
        for (program, args) in [
            (Program::Nft, ["-f", "-"]),
            (Program::IptablesRestore, ["--noflush", "--wait"]),
        ] {
            let command = Command::new(program).args(args).stdin(text.clone());
            let ours = text.trim_matches('\n').is_empty();
            prop_assert!(guard::check(&command).is_err() || ours, "{text:?}");
        }
    }
}

/// What somebody who holds the key might try.
const FOREIGN: [&str; 18] = [
    " ; flush ruleset",
    "; include \"/etc/shadow\"",
    " include \"/etc/shadow\"",
    " define x = 1",
    " add table inet filter",
    " delete table ip nat",
    " flush ruleset",
    " add rule inet filter input accept",
    " add rule inet portcullis nat-prerouting accept",
    " add rule inet portcullis nodes-all-1 masquerade",
    " -A INPUT -j ACCEPT",
    " -A PORTCULLIS-ACCEPT -j ACCEPT",
    " -A PORTCULLIS-PREROUTING -j DNAT --to-destination 10.0.0.1:1 --modprobe=/bin/sh",
    " -A FORWARD -j ACCEPT",
    " -F INPUT",
    " :INPUT ACCEPT [0:0]",
    " -D INPUT -j DROP",
    " \\",
];

#[test]
fn commands_that_are_not_ours_are_refused() {
    let nft = |args: &[&str]| Command::new(Program::Nft).args(args.iter().copied());
    for command in [
        nft(&["list", "ruleset"]),
        nft(&["-f", "/etc/shadow"]),
        nft(&["-f", "-", "-I", "/tmp"]),
        nft(&["-j", "list", "table", "inet", "portcullis", ";", "flush", "ruleset"]),
        nft(&["-i"]),
        Command::new(Program::IptablesRestore).args(["--wait"]).stdin("*nat\nCOMMIT\n"),
        Command::new(Program::IptablesRestore).args(["--noflush", "--wait", "--modprobe=/bin/sh"]),
        Command::new(Program::IptablesSave).args(["--modprobe=/bin/sh"]),
        Command::new(Program::Iptables).args(["-F"]),
        Command::new(Program::Conntrack).args(["-F"]),
        Command::new(Program::Conntrack).args(["-D", "-f", "ipv4", "-p", "udp"]),
        Command::new(Program::Conntrack).args([
            "-D",
            "-f",
            "ipv4",
            "-p",
            "udp",
            "--orig-port-dst",
            "53",
            "--orig-dst",
            "0.0.0.0/0",
        ]),
        Command::new(Program::Ip).args(["link", "set", "eth0", "down"]),
        Command::new(Program::Ip).args(["netns", "exec", "x", "sh"]),
        Command::new(Program::Ss).args(["-K"]),
        Command::new(Program::Sysctl).args(["-w", "net.ipv4.ip_forward=0"]),
        observe::addresses().stdin("x"),
    ] {
        assert!(guard::check(&command).is_err(), "{command}");
    }
}

#[test]
fn a_refusal_names_the_line() {
    let document = "add table inet portcullis\nflush ruleset\n";
    let command = Command::new(Program::Nft).args(["-f", "-"]).stdin(document);
    let refusal = guard::check(&command).expect_err("it is refused").to_string();
    assert_eq!(refusal, "nft may not be given line 2: `flush ruleset`");
}

#[test]
fn marked_rules_of_the_predecessor_may_be_removed_but_not_added() {
    let mark = "-m comment --comment \"service: a/b; node: c; epok_rule_id: x::service::y::z\"";
    let rule = format!(
        "PREROUTING -i eth0 -p tcp -m tcp --dport 1 {mark} -j DNAT --to-destination 10.0.0.1:1"
    );
    let check = |line: &str| {
        let document = format!("*nat\n{line}\nCOMMIT\n");
        let restore = Command::new(Program::IptablesRestore).args(["--noflush", "--wait"]);
        guard::check(&restore.stdin(document))
    };
    assert_eq!(check(&format!("-D {rule}")), Ok(()));
    assert!(check(&format!("-A {rule}")).is_err());
    assert!(check(&format!("-D {} --modprobe=/bin/sh", rule)).is_err());
    assert!(check("-D PREROUTING -i eth0 -p tcp -j DNAT --to-destination 10.0.0.1:1").is_err());
}

fn addresses() -> BTreeSet<std::net::IpAddr> {
    ["203.0.113.1", "fd00:203::1"].map(|it| it.parse().expect("an address")).into()
}
