//! Probes say what really happened to a packet.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::probe::{Outcome, Probe, SILENCE};
use testkit::{Lab, Machine, Protocol};

#[test]
fn an_echo_server_says_its_name_the_source_and_the_destination() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for (server, client) in [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")] {
                let echo = pair.server.serve("web", address("[::]:0"), protocol)?;
                let to = address(&format!("{server}:{}", echo.address().port()));
                let from = address(&format!("{client}:0"));

                let outcome = pair.client.probe(Probe::new(to, protocol).from(from))?;

                let answer =
                    outcome.answer().unwrap_or_else(|| panic!("{to}/{protocol}: {outcome}"));
                assert_eq!(answer.server, "web");
                assert_eq!(answer.reached_on, to);
                assert_eq!(answer.source_seen, answer.local);
                assert_eq!(answer.local.ip(), from.ip());
                assert!(answer.connected <= answer.answered);
            }
        }
        Ok(())
    })
}

#[test]
fn a_closed_port_refuses() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for to in ["10.9.0.1:9", "[fd09::1]:9"] {
                let outcome = pair.client.probe(Probe::new(address(to), protocol))?;
                assert!(matches!(outcome, Outcome::Refused(_)), "{to}/{protocol}: {outcome}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_dropped_packet_is_told_from_a_refused_one() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        let hole = pair.server.black_hole("10.9.0.2".parse()?)?;
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let probe = Probe::new(address("10.9.0.1:9"), protocol).within(SILENCE);
            assert_eq!(pair.client.probe(probe)?, Outcome::Dropped, "{protocol}");
        }
        drop(hole);
        let outcome = pair.client.probe(Probe::new(address("10.9.0.1:9"), Protocol::Tcp))?;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
        Ok(())
    })
}

#[test]
fn no_route_is_not_a_refusal() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        let outcome = pair.client.probe(Probe::new(address("198.51.100.1:80"), Protocol::Tcp))?;
        assert!(matches!(outcome, Outcome::Unreachable(_)), "{outcome}");
        Ok(())
    })
}

#[test]
fn a_source_that_is_not_the_machines_own_is_an_error() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        let probe = Probe::new(address("10.9.0.1:80"), Protocol::Tcp);
        let error = pair.client.probe(probe.from(address("203.0.113.9:0")));
        let error = error.expect_err("nobody has that address").to_string();
        assert!(error.contains("Cannot assign requested address"), "{error}");
        Ok(())
    })
}

#[test]
fn a_wildcard_server_answers_from_the_address_that_was_asked() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        pair.server.add_address("eth0", "10.9.0.7/24")?;
        let echo = pair.server.serve("dns", address("0.0.0.0:0"), Protocol::Udp)?;
        let to = address(&format!("10.9.0.7:{}", echo.address().port()));
        let outcome = pair.client.probe(Probe::new(to, Protocol::Udp))?;
        assert_eq!(outcome.answer().map(|it| it.reached_on), Some(to), "{outcome}");
        Ok(())
    })
}

#[test]
fn a_flow_keeps_its_source_port_and_notices_a_dead_server() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let echo = pair.server.serve("web", address("10.9.0.1:0"), protocol)?;
            let (flow, outcome) = pair.client.flow(Probe::new(echo.address(), protocol))?;
            let flow = flow.unwrap_or_else(|| panic!("{protocol}: {outcome}"));
            for _ in 0..3 {
                let outcome = flow.ask(Duration::from_secs(3))?;
                let seen = outcome.answer().map(|it| it.source_seen);
                assert_eq!(seen, Some(flow.local()), "{protocol}: {outcome}");
            }
            drop(echo);
            let outcome = flow.ask(Duration::from_secs(3))?;
            assert!(matches!(outcome, Outcome::Refused(_)), "{protocol}: {outcome}");
        }
        Ok(())
    })
}

#[test]
fn a_prober_reports_when_connections_were_lost() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        let at = pair.server.serve("web", address("10.9.0.1:0"), Protocol::Tcp)?;
        let probe = Probe::new(at.address(), Protocol::Tcp).within(Duration::from_secs(1));
        let prober = pair.client.prober(probe, Duration::from_millis(5))?;
        let mut seen = Vec::new();
        let mut wait_for = |what: &str, wanted: fn(&Outcome) -> bool| {
            testkit::wait::until_ok(what, Duration::from_secs(10), || {
                let new = prober.read()?;
                let found = new.iter().any(|it| wanted(&it.outcome));
                seen.extend(new);
                Ok(found.then_some(()))
            })
        };
        wait_for("an answer", |it| it.server() == Some("web"))?;
        let port = at.address();
        drop(at);
        wait_for("a refusal", |it| matches!(it, Outcome::Refused(_)))?;
        let _again = pair.server.serve("web2", port, Protocol::Tcp)?;
        wait_for("an answer of the new server", |it| it.server() == Some("web2"))?;
        seen.extend(prober.stop()?);

        seen.sort_by_key(|it| it.at);
        let (first, last) = (seen.first().expect("many"), seen.last().expect("many"));
        assert_eq!(first.outcome.server(), Some("web"), "{first:?}");
        assert_eq!(last.outcome.server(), Some("web2"), "{last:?}");
        Ok(())
    })
}

#[test]
#[expect(clippy::print_stderr, reason = "the times, for people who look")]
fn a_burst_measures_each_connection() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        let echo = pair.server.serve("web", address("10.9.0.1:0"), Protocol::Tcp)?;
        let mut burst = pair.client.burst(Probe::new(echo.address(), Protocol::Tcp), 500)?;
        assert_eq!((burst.answers.len(), burst.failed.len()), (500, 0));
        burst.answers.sort_by_key(|it| it.answered);
        let middle = &burst.answers[250];
        eprintln!("median: connected {:?}, answered {:?}", middle.connected, middle.answered);
        Ok(())
    })
}

#[test]
fn translated_packets_show_who_served_them_and_which_source_it_saw() -> anyhow::Result<()> {
    both_kinds_of_lab(|pair| {
        pair.client.add_address("lo", "10.9.0.99/32")?;
        pair.client.route("default", "10.9.0.1")?;
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let echo = pair.server.serve("web", address("10.9.0.1:0"), protocol)?;
            // In the client's own output path: 203.0.113.80 leads to the server, and the server
            // sees another source.
            pair.client.nft(&format!(
                "table ip nat\n\
                 delete table ip nat\n\
                 table ip nat {{\n\
                   chain out {{ type nat hook output priority -100;\n\
                     ip daddr 203.0.113.80 {protocol} dport 80 dnat to {}; }}\n\
                   chain post {{ type nat hook postrouting priority 100;\n\
                     {protocol} dport {} snat to 10.9.0.99; }}\n\
                 }}\n",
                echo.address(),
                echo.address().port(),
            ))?;

            let outcome = pair.client.probe(Probe::new(address("203.0.113.80:80"), protocol))?;

            let answer = outcome.answer().unwrap_or_else(|| panic!("{protocol}: {outcome}"));
            assert_eq!(answer.server, "web");
            assert_eq!(answer.reached_on, echo.address());
            assert_eq!(answer.source_seen.ip(), address("10.9.0.99:0").ip());
        }
        Ok(())
    })
}

struct Pair {
    _lab: Lab,
    server: Machine,
    client: Machine,
}

/// Runs a test in a plain lab, where that is allowed, and in one of a user namespace.
#[track_caller]
fn both_kinds_of_lab(test: impl Fn(&Pair) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for lab in [Lab::as_root("probes"), Lab::in_user_namespace("probes")] {
        let Some(lab) = testkit::require(lab) else { continue };
        let server = lab.machine("server")?;
        let client = lab.machine("client")?;
        let (left, right) = (["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"]);
        lab.link(&server, "eth0", &left, &client, "eth0", &right)?;
        test(&Pair { _lab: lab, server, client })?;
    }
    Ok(())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is not an address and port"))
}
