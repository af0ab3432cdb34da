//! What was changed by hand is seen and mended, in the real kernel (EP-07).

use std::collections::BTreeSet;

use firewall::{Backend, Observed};
use testkit::{Lab, Machine};

use crate::cases;
use crate::kernel::{assert_listed, observe, run};

const BUSY: &str = "
    external eth0
    internal br0 wg0
    destinations 203.0.113.1 fd00:203::1
    options masquerade accept-forwarded
    nodes all 10.0.0.1 10.0.0.2 10.0.0.3 fd00::1
    nodes shop/cart 10.0.0.2
    443/tcp nodes all:30443 for Service web/blog
    80/tcp internal nodes shop/cart:30080 for Service shop/cart from 10.8.0.0/24
    53/udp pods 10.244.0.1:5353 10.244.1.1:5353 for Pod net/dns-0
    8443/tcp nodes all:30843 for Service web/shop sticky
";

#[test]
fn nftables_changed_by_hand_is_mended() {
    let Some(lab) = testkit::require(Lab::new("drift-nftables")) else { return };
    let host = lab.machine("host").expect("a machine");
    let table = "inet portcullis";
    for change in [
        format!("delete element {table} everywhere {{ tcp . 443 }}"),
        format!("delete element {table} everywhere-ports {{ tcp . 443 }}"),
        format!("add element {table} everywhere {{ tcp . 9999 : goto nodes-all-1 }}"),
        format!("add element {table} external-ports {{ sctp . 1 : 1 }}"),
        format!("delete element {table} interfaces {{ \"wg0\" }}"),
        format!("add element {table} destinations-ipv4 {{ 192.0.2.1 }}"),
        format!("add element {table} targets-ipv4 {{ 192.0.2.1 }}"),
        format!("delete element {table} forwarded {{ tcp . 443 }}"),
        format!("add rule {table} nat-prerouting tcp dport 22 counter drop"),
        format!("insert rule {table} from-internal counter"),
        format!("add rule {table} nodes-all-1 accept"),
        format!("flush chain {table} nat-postrouting"),
        format!("flush chain {table} pods-udp-53"),
        format!("add chain {table} mine"),
        format!("add set {table} mine {{ type ipv4_addr; }}"),
        format!("add chain {table} more {{ type filter hook input priority 0; policy accept; }}"),
        format!("add counter {table} mine"),
        format!("delete table {table}"),
    ] {
        mended(&host, Backend::Nftables, &[("nft", &["-f", "-"], &change)]);
    }
}

#[test]
fn iptables_changed_by_hand_is_mended() {
    let Some(lab) = testkit::require(Lab::new("drift-iptables")) else { return };
    let host = lab.machine("host").expect("a machine");
    for change in [
        "-t nat -D PREROUTING -j PORTCULLIS-PREROUTING",
        "-t nat -I PREROUTING -j PORTCULLIS-PREROUTING",
        "-t nat -I POSTROUTING -s 192.0.2.1 -g PORTCULLIS-MASQUERADE",
        "-t nat -F PORTCULLIS-EVERYWHERE",
        "-t nat -D PORTCULLIS-EVERYWHERE 1",
        "-t nat -I PORTCULLIS-EVERYWHERE -p tcp --dport 1 -j REDIRECT",
        "-t nat -A PORTCULLIS-TCP-443 -p tcp -j DNAT --to-destination 192.0.2.1:1",
        "-t nat -I PORTCULLIS-MASQUERADE -p tcp -j MASQUERADE --random",
        "-t nat -N PORTCULLIS-MINE",
        "-F FORWARD",
        "-I PORTCULLIS-FORWARD -j LOG",
        "-F PORTCULLIS-ACCEPT",
    ] {
        let args: Vec<_> = ["-w"].into_iter().chain(change.split(' ')).collect();
        for program in ["iptables", "ip6tables"] {
            if !(program == "ip6tables" && change.contains("192.0.2.1")) {
                mended(&host, Backend::Iptables, &[(program, &args, "")]);
            }
        }
    }
    // The program that lists shows what another program of the same host did.
    assert_ne!(observe(&host, Backend::Iptables), Observed::default());
}

/// Changes the host by hand, and lets a plan mend it; what others have stays.
fn mended(host: &Machine, backend: Backend, by_hand: &[(&str, &[&str], &str)]) {
    let desired = backend.render(&cases::read(BUSY).expect("it reads"));
    apply(host, backend, &desired);
    for (program, args, input) in by_hand {
        let done = host.run_with_input(program, args, input);
        done.unwrap_or_else(|error| panic!("{program} {args:?} {input}: {error:#}"));
    }
    let before = observe(host, backend);
    let plan = backend.plan(&desired, &before, &BTreeSet::new());
    assert!(!plan.is_empty(), "nothing seen of {by_hand:?}");
    assert!(plan.steps().count() > 0, "nothing said of {by_hand:?}");
    apply(host, backend, &desired);
    let left = backend.plan(&desired, &observe(host, backend), &BTreeSet::new());
    assert!(left.is_empty(), "{by_hand:?} left {left}");
}

#[test]
fn a_table_with_flags_is_written_anew_however_nft_lists_it() {
    let listing = |flags: &str| {
        let stdout = format!(
            "{{\"nftables\": [{{\"metainfo\": {{}}}}, {{\"table\": {{\"family\": \"inet\", \"name\": \
             \"portcullis\", \"handle\": 13, \"flags\": {flags}"
        );
        Backend::Nftables.observe(&[command::Output {
            status: Some(0),
            stdout,
            stderr: String::new(),
        }])
    };
    let desired = Backend::Nftables.render(&cases::read(BUSY).expect("it reads"));
    // As newer versions print it, and as nft 1.0.6 does: memory of something else, or an end.
    for flags in ["[\"dormant\"]}}]}", "\"ifname\"}}]}", "", "\"\u{1}\"}}]}"] {
        let observed = listing(flags).expect(flags);
        let plan = Backend::Nftables.plan(&desired, &observed, &BTreeSet::new());
        assert!(plan.to_string().contains("flags of the table"), "{plan}");
    }
}

#[test]
fn a_transaction_against_another_state_changes_nothing() {
    let Some(lab) = testkit::require(Lab::new("contradiction")) else { return };
    let host = lab.machine("host").expect("a machine");
    let backend = Backend::Nftables;
    let desired = backend.render(&cases::read(BUSY).expect("it reads"));
    apply(&host, backend, &desired);
    let more = format!("{BUSY}\n 25/tcp nodes all:30025 for Service mail/smtp");
    let more = backend.render(&cases::read(&more).expect("it reads"));
    let plan = backend.plan(&more, &observe(&host, backend), &BTreeSet::new());
    host.nft("add element inet portcullis everywhere { tcp . 25 : goto nodes-all-1 }")
        .expect("it is taken");
    let before = observe(&host, backend);
    let first = plan.commands().into_iter().next().expect("there is something to do");
    assert!(!run(&host, &first).succeeded(), "{}", first.stdin);
    assert_eq!(observe(&host, backend), before);
    apply(&host, backend, &more);
}

#[test]
fn a_rollback_restores_what_was_there() {
    let Some(lab) = testkit::require(Lab::new("rollback")) else { return };
    for backend in [Backend::Nftables, Backend::Iptables] {
        let host = lab.machine("host").expect("a machine");
        let nothing = observe(&host, backend);
        let few = "internal eth0\n nodes all 10.0.0.9\n 443/tcp nodes all:1 for Service a/b";
        let few = backend.render(&cases::read(few).expect("it reads"));
        let busy = backend.render(&cases::read(BUSY).expect("it reads"));
        for (before, after) in [(None, &few), (Some(&few), &busy), (Some(&busy), &few)] {
            if let Some(before) = before {
                apply(&host, backend, before);
            }
            let was = observe(&host, backend);
            assert!(before.is_some() || was == nothing);
            let plan = backend.plan(after, &was, &BTreeSet::new());
            let rollback = plan.rollback(&was);
            for command in plan.commands().iter().chain(&rollback) {
                assert_eq!(firewall::guard::check(command), Ok(()));
                let output = run(&host, command);
                assert!(output.succeeded(), "{output:?}\n{}", command.stdin);
            }
            assert_eq!(observe(&host, backend), was, "{backend:?}");
        }
    }
}

#[test]
fn rules_of_others_are_left_alone() {
    let Some(lab) = testkit::require(Lab::new("others")) else { return };
    let host = lab.machine("host").expect("a machine");
    host.nft("table inet other { chain c { type nat hook prerouting priority dstnat; policy accept; }; }")
        .expect("it is taken");
    for args in [
        "-t nat -A PREROUTING -p tcp --dport 2222 -j DNAT --to-destination 192.0.2.1:22",
        "-t nat -A PREROUTING -m comment --comment PORTCULLIS-X -j ACCEPT",
        "-t nat -N PORTCULLISH",
        "-A FORWARD -s 192.0.2.0/24 -j DROP",
    ] {
        let args: Vec<_> = ["-w"].into_iter().chain(args.split(' ')).collect();
        host.run("iptables", &args).expect("it is taken");
    }
    let others = |host: &Machine| {
        let ours = |line: &&str| !line.contains("PORTCULLIS-") || line.contains("PORTCULLIS-X");
        let saved = host.run("iptables-save", &[]).expect("it lists");
        let saved: Vec<_> = saved.lines().filter(|it| !it.starts_with('#')).filter(ours).collect();
        (saved.join("\n"), host.run("nft", &["list", "table", "inet", "other"]).expect("it lists"))
    };
    let before = others(&host);
    for backend in [Backend::Iptables, Backend::Nftables] {
        let desired = backend.render(&cases::read(BUSY).expect("it reads"));
        apply(&host, backend, &desired);
        assert_eq!(others(&host), before);
        let observed = observe(&host, backend);
        for command in backend.cleanup(&observed).commands() {
            assert!(run(&host, &command).succeeded());
        }
        assert!(observe(&host, backend).is_empty());
        assert_eq!(others(&host), before);
    }
}

fn apply(host: &Machine, backend: Backend, desired: &firewall::Ruleset) {
    let before = observe(host, backend);
    for command in backend.plan(desired, &before, &BTreeSet::new()).commands() {
        let output = run(host, &command);
        assert!(output.succeeded(), "{output:?}\n{}", command.stdin);
    }
    assert_listed(host, backend, desired);
}
