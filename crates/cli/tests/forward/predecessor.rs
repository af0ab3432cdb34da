//! Epok's host, Epok's rules, Epok's arguments: taken over without a gap, and equal in effect.

use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::border::{HOST, at};
use testkit::probe::Probe;
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, PROGRAM, Place, counts};

/// What Epok leaves for Service web/blog with `443:30443` on two nodes and one interface.
const EPOK_RULES: &str = "*nat
-A PREROUTING -i eth0 -p tcp -m tcp --dport 443 -m state --state NEW -m statistic --mode nth --every 2 --packet 0 -m comment --comment \"service: web/blog; node: n2; epok_rule_id: 1f2e3d4c5b6a7988::service::8899aabbccddeeff::0011223344556677\" -j DNAT --to-destination 10.77.0.12:30443
-A PREROUTING -i eth0 -p tcp -m tcp --dport 443 -m state --state NEW -m comment --comment \"service: web/blog; node: n1; epok_rule_id: 1f2e3d4c5b6a7988::service::8899aabbccddeeff::7766554433221100\" -j DNAT --to-destination 10.77.0.11:30443
COMMIT
";

#[test]
fn ep02_a_host_with_epoks_rules_is_taken_over_without_a_gap() -> anyhow::Result<()> {
    for backend in ["nftables", "iptables"] {
        let Some(place) = Place::build("adopt", "")? else { return Ok(()) };
        place.remove("host")?;
        let epok = objects::service("blog", &[("epok.getbetter.ro/externalports", "443:30443")]);
        place.write("blog", &epok)?;
        place.host().run_with_input("iptables-restore", &["--noflush"], EPOK_RULES)?;
        let spread = place.spread(&place.border.outside, at(HOST, 443), 10)?;
        assert_eq!(spread, counts([("n1", 5), ("n2", 5)]), "the predecessor's rules work");

        let every = Duration::from_millis(5);
        let prober = place.border.outside.prober(Probe::new(at(HOST, 443), Tcp), every)?;
        let manifests = place.manifests.path().to_str().unwrap_or_default();
        let arguments =
            ["epok", "-i", "eth0", "--backend", backend, "--manifests", manifests, "local"];
        let controller = place.host().spawn(PROGRAM, &arguments)?;
        wait::until_ok("the predecessor's rules are gone", PATIENCE, || {
            controller.check_alive()?;
            let rules = place.host().run("iptables-save", &["-t", "nat"])?;
            Ok((!rules.contains("epok_rule_id")).then_some(()))
        })?;
        let mut attempts = Vec::new();
        wait::until_ok("enough connections before, during and after", PATIENCE, || {
            attempts.extend(prober.read()?);
            Ok((attempts.len() > 50).then_some(()))
        })?;
        attempts.extend(prober.stop()?);
        let lost: Vec<_> = attempts.iter().filter(|it| it.outcome.answer().is_none()).collect();
        assert!(lost.is_empty(), "{backend}: {} of {} lost: {lost:?}", lost.len(), attempts.len());

        let spread = place.spread(&place.border.outside, at(HOST, 443), 10)?;
        assert_eq!(spread, counts([("n1", 5), ("n2", 5)]), "{backend}: our rules alone");
    }
    Ok(())
}

#[test]
fn ep01_called_by_the_name_epok_it_takes_epoks_arguments() -> anyhow::Result<()> {
    let Some(place) = Place::build("drop-in", "")? else { return Ok(()) };
    place.remove("host")?;
    let blog = objects::service(
        "blog",
        &[("epok.getbetter.ro/externalport", "443:30443"), ("epok.getbetter.ro/internal", "")],
    );
    place.write("blog", &blog)?;
    let name = place.manifests.path().join("epok");
    std::os::unix::fs::symlink(PROGRAM, &name)?;
    let manifests = place.manifests.path().to_str().unwrap_or_default();
    let mut command = place.host().command(&name);
    command.env("EPOK_INTERFACES", "eth0, wg0").args(["--external-interface", "eth0"]);
    command.args([
        "--batch-commands=false",
        "--batch-size",
        "9",
        "--manifests",
        manifests,
        "local",
    ]);
    let controller = testkit::lab::Daemon::start("epok", command)?;

    // The VPN client dials the external address, as with Epok; from outside nobody gets in.
    wait::until_ok("the VPN client gets through", PATIENCE, || {
        controller.check_alive()?;
        let probe = Probe::new(at(HOST, 443), Tcp).within(testkit::probe::SILENCE);
        Ok(place.border.vpn.probe(probe)?.answer().map(drop))
    })?;
    assert!(place.try_outside(at(HOST, 443), Tcp)?.answer().is_none());
    Ok(())
}
