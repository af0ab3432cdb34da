//! EP-02: a host with rules of Epok is taken over, and every connection gets through meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use expect_test::expect;
use firewall::{Backend, epok};
use testkit::probe::Probe;
use testkit::{Lab, Machine, Protocol};

use crate::cases;
use crate::kernel::run;

/// What Epok writes for two nodes, one Service and a pod, with the options of its rules.
const RULES: [&str; 5] = [
    "PREROUTING -i eth0 -d 203.0.113.1/32 -p tcp -m tcp --dport 443 -m state --state NEW \
     -m statistic --mode nth --every 2 --packet 0 -m comment --comment \
     \"service: web/blog; node: node-b; epok_rule_id: 1f::service::2f::3f\" \
     -j DNAT --to-destination 10.0.0.2:30443",
    "PREROUTING -i eth0 -d 203.0.113.1/32 -p tcp -m tcp --dport 443 -m state --state NEW \
     -m comment --comment \"service: web/blog; node: node-a; epok_rule_id: 1f::service::2f::4f\" \
     -j DNAT --to-destination 10.0.0.1:30443",
    // The same once more: each is removed once.
    "PREROUTING -i eth0 -d 203.0.113.1/32 -p tcp -m tcp --dport 443 -m state --state NEW \
     -m comment --comment \"service: web/blog; node: node-a; epok_rule_id: 1f::service::2f::4f\" \
     -j DNAT --to-destination 10.0.0.1:30443",
    "PREROUTING -s 10.8.0.0/16 -i wg0 -p udp -m udp --dport 53 -m comment --comment \
     \"pod: dns-0; namespace: net; epok_rule_id: 1f::pod::2f::5f\" \
     -j DNAT --to-destination 10.0.0.1:5353",
    "OUTPUT -d 203.0.113.1/32 -o lo -p tcp -m tcp --dport 443 -m state --state NEW -m comment \
     --comment \"service: web/blog; node: node-a; epok_rule_id: 1f::service::2f::6f\" \
     -j DNAT --to-destination 10.0.0.1:30443",
];

#[test]
fn a_host_is_taken_over_without_a_lost_connection() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("takeover")) else { return Ok(()) };
    for backend in [Backend::Nftables, Backend::Iptables] {
        let (host, client, _servers) = border(&lab)?;
        let document = RULES.map(|it| format!("-A {it}\n")).concat();
        host.run_with_input(
            "iptables-restore",
            &["--noflush"],
            &format!("*nat\n{document}-A PREROUTING -p tcp --dport 2222 -j RETURN\nCOMMIT\n"),
        )?;
        let probe = Probe::new("203.0.113.1:443".parse()?, Protocol::Tcp);
        let prober = client.prober(probe, Duration::from_millis(5))?;
        let before = testkit::wait::until("connections", Duration::from_secs(10), || {
            let seen = prober.read().unwrap_or_default();
            (!seen.is_empty()).then_some(seen)
        });

        let forwarding = cases::read(
            "external eth0\n internal wg0\n destinations 203.0.113.1\n nodes all 10.0.0.1 10.0.0.2\n \
             443/tcp nodes all:30443 for Service web/blog",
        )?;
        let plan = backend.plan(
            &backend.render(&forwarding),
            &firewall::Observed::default(),
            &BTreeSet::new(),
        );
        for command in plan.commands() {
            assert!(run(&host, &command).succeeded());
        }
        let listing = run(&host, &epok::listing());
        let left = epok::find(&listing.stdout);
        assert_eq!((left.rules.len(), left.unclear.len()), (5, 0), "{left:#?}");
        let removal = left.removal().expect("there are rules");
        assert_eq!(firewall::guard::check(&removal), Ok(()));
        let output = run(&host, &removal);
        assert!(output.succeeded(), "{output:?}");

        let listing = run(&host, &epok::listing()).stdout;
        assert_eq!(epok::find(&listing), epok::Left::default());
        assert!(listing.contains("--dport 2222 -j RETURN"), "rules of others stay");
        let attempts = prober.stop()?;
        let lost =
            before?.iter().chain(&attempts).filter(|it| it.outcome.answer().is_none()).count();
        assert_eq!(lost, 0, "{backend:?}: {attempts:#?}");
        assert!(attempts.len() > 3, "the take-over was watched");
        assert!(client.probe(probe)?.answer().is_some());
    }
    Ok(())
}

fn border(lab: &Lab) -> anyhow::Result<(Machine, Machine, Vec<testkit::probe::EchoServer>)> {
    let (host, client) = (lab.machine("host")?, lab.machine("client")?);
    let node = lab.machine("node")?;
    lab.link(&host, "eth0", &["203.0.113.1/24"], &client, "eth0", &["203.0.113.9/24"])?;
    let nodes = ["10.0.0.1/24", "10.0.0.2/24"];
    lab.link(&host, "br0", &["10.0.0.254/24"], &node, "eth0", &nodes)?;
    node.route("default", "10.0.0.254")?;
    host.forwarding(true)?;
    let servers = vec![node.serve("node", "[::]:30443".parse()?, Protocol::Tcp)?];
    Ok((host, client, servers))
}

#[test]
fn what_is_found_can_be_told() {
    let text = RULES.map(|it| format!("-A {it}\n")).concat();
    let left = epok::find(&format!("*nat\n{text}COMMIT\n"));
    let told: Vec<_> = left
        .rules
        .iter()
        .map(|it| format!("{} {} -> {} ({})\n", it.chain, it.port, it.target, it.origin))
        .collect();
    expect![[r#"
        PREROUTING tcp/443 -> 10.0.0.2:30443 (service: web/blog; node: node-b)
        PREROUTING tcp/443 -> 10.0.0.1:30443 (service: web/blog; node: node-a)
        PREROUTING tcp/443 -> 10.0.0.1:30443 (service: web/blog; node: node-a)
        PREROUTING udp/53 -> 10.0.0.1:5353 (pod: dns-0; namespace: net)
        OUTPUT tcp/443 -> 10.0.0.1:30443 (service: web/blog; node: node-a)
    "#]]
    .assert_eq(&told.concat());
}

#[test]
fn what_is_not_certain_is_reported_and_left() {
    let cut = format!("service: {}/blog; node: {}", "n".repeat(120), "x".repeat(118));
    for line in [
        // The marker in a rule of somebody else.
        "-A PREROUTING -p tcp -m comment --comment \"about epok_rule_id\" -j RETURN".to_owned(),
        "-A PREROUTING -p tcp -m comment --comment \"epok_rule_id: 1\" -j ACCEPT".to_owned(),
        "-A MINE -m comment --comment \"epok_rule_id: 1\" -j DNAT --to-destination 10.0.0.1:1".to_owned(),
        // An option that we do not know, a quotation without an end, two comments.
        "-A PREROUTING --new 1 -m comment --comment \"epok_rule_id: 1\" -j DNAT --to-destination 10.0.0.1:1".to_owned(),
        "-A PREROUTING -m comment --comment \"epok_rule_id: 1 -j DNAT --to-destination 10.0.0.1:1".to_owned(),
        "-A PREROUTING -m comment --comment a -m comment --comment \"epok_rule_id: 1\" -j DNAT --to-destination 10.0.0.1:1".to_owned(),
        // iptables cut the comment, and the marker with it.
        format!("-A PREROUTING -p tcp -m comment --comment \"{cut}\" -j DNAT --to-destination 10.0.0.1:1"),
    ] {
        let left = epok::find(&format!("*nat\n{line}\nCOMMIT\n"));
        assert_eq!(left.rules, [], "{line}");
        assert_eq!(left.unclear, [line]);
        assert_eq!(left.removal(), None);
    }
    let other = "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination 10.0.0.1:1\nCOMMIT\n";
    assert_eq!(epok::find(other), epok::Left::default());
}
