//! The host is another machine: three ways to be allowed there, lost connections, hosts that do
//! not answer.

use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::border::{HOST, HOST_ON_VPN, at};
use testkit::lab::Daemon;
use testkit::probe::Probe;
use testkit::sshd::{self, SshServer};
use testkit::{Lab, wait};

use crate::objects;
use crate::place::{PATIENCE, PROGRAM, Place};

/// One way to be allowed on a host.
struct Way {
    name: &'static str,
    /// Lines of `spec` beside the executor.
    spec: &'static str,
    mode: &'static str,
    sudoers: &'static [&'static str],
    forced: bool,
}

const WAYS: [Way; 3] = [
    Way {
        name: "forced command",
        spec: "",
        mode: "forcedCommand",
        sudoers: &["--program", PROGRAM],
        forced: true,
    },
    Way {
        name: "sudo for nft",
        spec: "",
        mode: "sudo",
        sudoers: &["--mode", "nft"],
        forced: false,
    },
    Way {
        name: "the predecessor's sudoers",
        spec: "backend: iptables",
        mode: "sudo",
        sudoers: &["--mode", "epok"],
        forced: false,
    },
];

#[test]
fn ep12_three_ways_to_be_allowed_each_over_one_standing_session() -> anyhow::Result<()> {
    for way in &WAYS {
        let Some(remote) = Remote::build(way, "")? else { return Ok(()) };
        let place = &remote.place;
        place.write("blog", &objects::blog())?;
        let _controller = remote.start()?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        for port in [1001, 1002, 1003] {
            let ports = format!("{port}:30443");
            place.write(
                "blog",
                &objects::service("blog", &[("portcullis.dev/host-ports", &ports)]),
            )?;
            place.wait_reached(at(HOST, port), Tcp)?;
        }
        place.wait_closed(at(HOST, 443), Tcp)?;
        let sessions = remote.server.log().matches("Accepted publickey").count();
        assert_eq!(sessions, 1, "{}: every command went over one session", way.name);
    }
    Ok(())
}

#[test]
fn ep12_a_lost_session_is_made_again_and_nothing_is_lost_meanwhile() -> anyhow::Result<()> {
    let Some(remote) = Remote::build(&WAYS[0], "")? else { return Ok(()) };
    let place = &remote.place;
    place.write("blog", &objects::blog())?;
    let controller = remote.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    let prober =
        place.border.outside.prober(Probe::new(at(HOST, 443), Tcp), Duration::from_millis(10))?;

    remote.server.kill();
    remote.server.kill_sessions();
    place
        .write("shop", &objects::service("shop", &[("portcullis.dev/host-ports", "8443:30443")]))?;
    wait::until_ok("the loss is told", PATIENCE, || {
        controller.check_alive()?;
        let status = remote.status()?;
        Ok(status["hosts"]["edge"]["lastError"].as_str().map(drop))
    })?;
    remote.server.restart()?;

    place.wait_reached(at(HOST, 8443), Tcp)?;
    let attempts = prober.stop()?;
    let lost = attempts.iter().filter(|it| it.outcome.answer().is_none()).count();
    assert_eq!(lost, 0, "of {} connections", attempts.len());
    Ok(())
}

#[test]
fn ep12_a_host_that_does_not_answer_delays_no_other() -> anyhow::Result<()> {
    let Some(remote) = Remote::build(&WAYS[0], "")? else { return Ok(()) };
    let place = &remote.place;
    let silent =
        remote.manifest("").replace("name: edge", "name: silent").replace(HOST_ON_VPN, "10.8.0.99");
    place.border.host.nft("table inet owner { chain forward { type filter hook prerouting priority raw; ip daddr 10.8.0.99 drop; }; }")?;
    place.border.vpn.run(
        "ip",
        &["neigh", "replace", "10.8.0.99", "lladdr", "02:00:00:00:00:99", "dev", "wg0"],
    )?;
    place.write("silent", &silent)?;
    place.write("blog", &objects::blog())?;
    let _controller = remote.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    place
        .write("blog", &objects::service("blog", &[("portcullis.dev/host-ports", "444:30443")]))?;
    place.wait_reached(at(HOST, 444), Tcp)?;
    wait::until_ok("the silent host is known and not reached", PATIENCE, || {
        let status = remote.status()?;
        Ok((status["hosts"]["silent"]["revision"].as_u64() == Some(0)).then_some(()))
    })
}

#[test]
fn a_wrong_host_key_changes_nothing_and_shows_both_fingerprints() -> anyhow::Result<()> {
    let Some(remote) = Remote::build(&WAYS[0], "")? else { return Ok(()) };
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let manifest = remote.manifest("").replace(remote.server.host_key(), other);
    assert_ne!(manifest, remote.manifest(""));
    remote.place.write("host", &manifest)?;
    remote.place.write("blog", &objects::blog())?;
    let _controller = remote.start()?;
    let error = wait::until_ok("the mismatch is told", PATIENCE, || {
        Ok(remote
            .status()
            .ok()
            .and_then(|it| it["hosts"]["edge"]["lastError"].as_str().map(str::to_owned)))
    })?;
    assert_eq!(error.matches("SHA256:").count(), 2, "{error}");
    assert!(!remote.server.log().contains("Accepted"), "no credential was offered to a stranger");
    Ok(())
}

#[test]
fn a_confirmed_change_stays() -> anyhow::Result<()> {
    for way in &WAYS[..2] {
        let Some(remote) = Remote::build(way, "confirmSeconds: 5")? else { return Ok(()) };
        let place = &remote.place;
        place.write("blog", &objects::blog())?;
        let _controller = remote.start()?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        // A change that nobody confirms is gone after five seconds; this one must outlive them.
        let wanted = Duration::from_secs(7);
        let prober = place
            .border
            .outside
            .prober(Probe::new(at(HOST, 443), Tcp), Duration::from_millis(50))?;
        let mut attempts = Vec::new();
        wait::until_ok("seven seconds of connections", PATIENCE, || {
            attempts.extend(prober.read()?);
            let span = attempts
                .first()
                .zip(attempts.last())
                .and_then(|(a, b)| b.at.duration_since(a.at).ok());
            Ok(span.filter(|it| *it >= wanted).map(drop))
        })?;
        let lost = attempts.iter().filter(|it| it.outcome.answer().is_none()).count();
        assert_eq!(lost, 0, "{}: of {}", way.name, attempts.len());
    }
    Ok(())
}

/// A border whose host is reached over SSH from the VPN machine.
struct Remote {
    place: Place,
    server: SshServer,
    spec: String,
    mode: &'static str,
}

impl Remote {
    fn build(way: &Way, executor: &str) -> anyhow::Result<Option<Self>> {
        let lab = sshd::available().and_then(|()| Lab::as_root(way.name));
        let Some(lab) = testkit::require(lab) else { return Ok(None) };
        let place = Place::in_lab(lab, "")?;
        let mut install = vec!["install", "sudoers"];
        install.extend(way.sudoers);
        let sudoers = place.run(&install)?;
        let mut options = sshd::Options::new(place.host(), HOST_ON_VPN.parse()?).sudoers(&sudoers);
        if way.forced {
            options =
                options.key_options(&format!("restrict,command=\"sudo -n {PROGRAM} host-apply\""));
        }
        let server = options.start()?;
        let remote = Self { place, server, spec: way.spec.to_owned(), mode: way.mode };
        remote.place.write("host", &remote.manifest(executor))?;
        Ok(Some(remote))
    }

    /// The Host, with one more line for its executor.
    fn manifest(&self, executor: &str) -> String {
        let Self { server, spec, mode, .. } = self;
        let (address, key, host_key) = (server.address(), server.private_key(), server.host_key());
        let executor =
            if executor.is_empty() { String::new() } else { format!("\n    {executor}") };
        objects::host(&format!(
            "{spec}\nexecutor:\n  ssh:\n    address: {}\n    port: {}\n    user: {}\n    hostKey: {host_key}\n    keyFile: {}\n    mode: {mode}{executor}",
            address.ip(),
            address.port(),
            server.user(),
            key.display(),
        ))
    }

    /// Starts the controller on the VPN machine.
    fn start(&self) -> anyhow::Result<Daemon> {
        let manifests = self.place.manifests.path().to_str().unwrap_or_default();
        self.place
            .border
            .vpn
            .spawn(PROGRAM, &["controller", "--manifests", manifests, "--resync", "5"])
    }

    fn status(&self) -> anyhow::Result<serde_json::Value> {
        let status = self.place.border.vpn.run(PROGRAM, &["status", "--output", "json"])?;
        Ok(serde_json::from_str(&status)?)
    }
}
