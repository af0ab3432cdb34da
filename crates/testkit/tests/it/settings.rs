//! A machine's network is what was asked for.

use testkit::lab::ReversePath;
use testkit::probe::{Outcome, Probe, SILENCE};
use testkit::{Lab, Protocol};

use crate::labs::{OPEN, Site};

#[test]
fn without_forwarding_a_router_is_a_wall() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("wall")) else { continue };
        let site = Site::build(&lab)?;
        for (to, family) in [("10.1.0.11:8080", "IPv4"), ("[fd02::11]:8080", "IPv6")] {
            let probe = Probe::new(to.parse()?, Protocol::Tcp).within(SILENCE);
            site.router.forwarding(false)?;
            assert_eq!(site.client.probe(probe)?, Outcome::Dropped, "{family}");
            site.router.forwarding(true)?;
            let outcome = site.client.probe(Probe::new(to.parse()?, Protocol::Tcp))?;
            assert_eq!(outcome.server(), Some("n1"), "{family}: {outcome}");
        }
    }
    Ok(())
}

#[test]
fn the_reverse_path_filter_is_what_was_asked_for() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("reverse-path")) else { continue };
        let site = Site::build(&lab)?;
        // From an address that the router expects behind its other interface.
        site.client.add_address("lo", "10.1.0.77/32")?;
        let echo = site.router.serve("router", "192.0.2.1:0".parse()?, Protocol::Udp)?;
        let probe = Probe::new(echo.address(), Protocol::Udp).within(SILENCE);
        // From its usual address first: the filter is for address resolution too, and a request
        // that was not answered is not repeated at once.
        assert_eq!(site.client.probe(probe)?.server(), Some("router"));
        let probe = probe.from("10.1.0.77:0".parse()?);
        let arrived = || -> anyhow::Result<u64> {
            let counters = site.router.run("nft", &["-j", "list", "counters"])?;
            let counters: serde_json::Value = serde_json::from_str(&counters)?;
            let found = counters["nftables"].as_array().into_iter().flatten();
            let packets = found.filter_map(|it| it["counter"]["packets"].as_u64());
            Ok(packets.sum())
        };
        site.router.nft(
            "table ip count {\n\
               counter seen {\n }\n\
               chain in {\n\
                 type filter hook input priority 0; udp dport != 0 counter name seen\n\
               }\n\
             }\n",
        )?;
        for (filter, packets) in
            [(ReversePath::Strict, 0), (ReversePath::Loose, 1), (ReversePath::Off, 2)]
        {
            site.router.reverse_path(filter)?;
            site.client.probe(probe)?;
            assert_eq!(arrived()?, packets, "{filter:?}");
        }
    }
    Ok(())
}

#[test]
fn settings_of_the_whole_host_cannot_be_reached() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("settings")) else { return Ok(()) };
    let machine = lab.machine("a")?;
    for key in ["../kernel/hostname", "/proc/sys/kernel/hostname", ""] {
        let error = machine.sysctl(key, "x").expect_err("not a network setting");
        assert!(format!("{error:#}").contains("is not a path below /proc/sys/net"), "{error:#}");
    }
    Ok(())
}

#[test]
fn a_bridge_joins_what_is_plugged_into_it_until_a_cable_is_pulled() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("bridge")) else { continue };
        let (hub, a, b) = (lab.machine("hub")?, lab.machine("a")?, lab.machine("b")?);
        lab.link(&a, "eth0", &["10.4.0.1/24"], &hub, "to-a", &[])?;
        lab.link(&b, "eth0", &["10.4.0.2/24"], &hub, "to-b", &[])?;
        hub.bridge("br0", &["10.4.0.254/24"], &["to-a", "to-b"])?;
        assert_eq!(hub.interfaces()?.len(), 3);
        let _b = b.serve("b", "10.4.0.2:80".parse()?, Protocol::Tcp)?;
        let _hub = hub.serve("hub", "10.4.0.254:80".parse()?, Protocol::Tcp)?;
        let reach = |to: &str| a.probe(Probe::new(to.parse()?, Protocol::Tcp).within(SILENCE));
        assert_eq!(reach("10.4.0.254:80")?.server(), Some("hub"));
        assert_eq!(reach("10.4.0.2:80")?.server(), Some("b"));
        hub.set_up("to-b", false)?;
        assert_eq!(reach("10.4.0.2:80")?, Outcome::Dropped);
        hub.set_up("to-b", true)?;
        b.remove_address("eth0", "10.4.0.2/24")?;
        assert_eq!(reach("10.4.0.254:80")?.server(), Some("hub"));
        assert_eq!(reach("10.4.0.2:80")?, Outcome::Dropped);
    }
    Ok(())
}
