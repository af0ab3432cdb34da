//! A plain OpenSSH server in the place of a gateway: what `autossh -R` did, and what it did not.

use std::net::SocketAddr;

use anyhow::Context as _;
use testkit::Protocol::Tcp;
use testkit::internet::{Direction, public};
use testkit::lab::Daemon;
use testkit::probe::{EchoServer, Outcome, Probe};
use testkit::sshd::{self, SshServer};
use testkit::wait;

use crate::objects::Service;
use crate::place::{AGENT, PATIENCE, Place, Size, at};

/// The account may forward these two ports and nothing else; it has no shell. Sessions that are
/// dead are given up after a few seconds.
const SERVER: &str = "AllowTcpForwarding remote\nGatewayPorts clientspecified\n\
                      ClientAliveInterval 1\nClientAliveCountMax 3\n";
const KEY: &str = "restrict,port-forwarding,permitlisten=\"127.0.0.1:8080\",\
                   permitlisten=\"127.0.0.1:8443\"";

/// A place whose gateway is an SSH server, and what listens on the agents' own loopback.
struct Site {
    server: SshServer,
    ingresses: Vec<EchoServer>,
    place: Place,
}

impl Site {
    fn build(name: &str, agents: u8) -> anyhow::Result<Option<Self>> {
        if testkit::require(sshd::available()).is_none() {
            return Ok(None);
        }
        let Some(place) = Place::empty(name, Size { gateways: 1, agents })? else {
            return Ok(None);
        };
        let server = sshd::Options::new(place.gateway(1), public(1).into())
            .shell("/usr/sbin/nologin")
            .key_options(KEY)
            .configuration(SERVER)
            .start()?;
        std::fs::copy(server.private_key(), place.path("key"))?;
        let mut ingresses = Vec::new();
        for number in 1..=agents {
            for (port, name) in [(80, "http"), (443, "https")] {
                let at = SocketAddr::from(([127, 0, 0, 1], port));
                let name = format!("{name}-a{number}");
                ingresses.push(place.agent(number).serve(&name, at, Tcp)?);
            }
        }
        Ok(Some(Self { server, ingresses, place }))
    }

    /// Declares the server as a gateway with this host key.
    fn declare(&self, host_key: &str) -> anyhow::Result<()> {
        let (host, user) = (public(1), self.server.user());
        let key = self.place.path("key");
        self.place.write(
            "g1",
            &format!(
                "apiVersion: portcullis.dev/v1alpha1\nkind: EdgeGateway\nmetadata: {{ name: g1 }}\n\
                 spec:\n  endpoints: [{{ host: {host} }}]\n  addresses: [{{ address: 127.0.0.1 }}]\n  \
                 ssh: {{ user: {user}, hostKey: {host_key}, keyFile: {} }}\n",
                key.display()
            ),
        )
    }

    /// `-R 8080:localhost:80 -R 8443:localhost:443`.
    fn publish(&self) -> anyhow::Result<()> {
        let service = Service {
            name: "ingress",
            annotations: &[
                ("gateway", "g1"),
                ("gateway-ports", "8080:80, 8443:443"),
                ("target", "host"),
            ],
            spec: "type: ClusterIP",
            ports: &[(80, "TCP", 80), (443, "TCP", 443)],
            endpoints: &[],
            ..Service::default()
        };
        self.place.write("ingress", &service.yaml())
    }

    /// Starts an agent that may lead visitors to its own machine.
    fn start_agent(&self, number: u8) -> anyhow::Result<()> {
        self.place.start_agent_with(number, &["--allow-host-target"])
    }

    /// Who answers the forwarder on the server, if anybody does.
    fn answers(&self, port: u16) -> anyhow::Result<Option<String>> {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let outcome = self.place.gateway(1).probe(Probe::new(to, Tcp))?;
        Ok(outcome.server().map(str::to_owned))
    }

    fn answered_by(&self, port: u16, name: &str) -> anyhow::Result<()> {
        let mut last = None;
        wait::until_ok(&format!("{name} answers at {port}"), PATIENCE, || {
            last = self.answers(port)?;
            Ok((last.as_deref() == Some(name)).then_some(()))
        })
        .with_context(|| {
            format!("last it was {last:?}\n{}\n{}", self.place.logs(), self.server.log())
        })
    }

    /// What an agent says of the server; null while it does not answer.
    fn status(&self, agent: u8) -> serde_json::Value {
        self.place.agent_status(agent).map(|it| it["gateways"]["g1"].clone()).unwrap_or_default()
    }

    /// What an agent says of the two ports.
    fn states(&self, agent: u8) -> Vec<String> {
        let ports = self.status(agent)["ports"].as_array().cloned().unwrap_or_default();
        ports.iter().filter_map(|it| it["state"].as_str().map(str::to_owned)).collect()
    }
}

#[test]
fn wb02_a_plain_ssh_server_forwards_8080_and_8443_to_an_ingress_on_localhost() -> anyhow::Result<()>
{
    let Some(site) = Site::build("openssh", 1)? else { return Ok(()) };
    site.declare(site.server.host_key())?;
    site.publish()?;
    site.start_agent(1)?;
    site.answered_by(8080, "http-a1")?;
    site.answered_by(8443, "https-a1")?;
    let listening = site.place.gateway(1).run("ss", &["-Hltn"])?;
    for port in ["127.0.0.1:8080", "127.0.0.1:8443"] {
        assert!(listening.contains(port), "{port} in {listening}");
    }
    let outside = site.place.visit(at(1, 8080), Tcp)?;
    assert!(matches!(outside, Outcome::Refused(_)), "only the machine itself: {outside}");
    // One session, of an account that can do nothing else.
    let log = site.server.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    assert_eq!(site.ingresses.len(), 2);

    // Nothing is left when nothing is wished.
    site.place.remove("ingress")?;
    wait::until_ok("the server listens no more", PATIENCE, || {
        Ok(site.answers(8080)?.is_none().then_some(()))
    })
}

#[test]
fn wb02_a_port_that_a_dead_session_holds_is_asked_for_until_it_is_free() -> anyhow::Result<()> {
    let Some(site) = Site::build("openssh-stuck", 2)? else { return Ok(()) };
    site.declare(site.server.host_key())?;
    site.publish()?;
    site.start_agent(1)?;
    site.answered_by(8080, "http-a1")?;
    // The second one stands by: the server holds the ports for the first one's session.
    site.start_agent(2)?;
    wait::until("the second agent says who is in its way", PATIENCE, || {
        let states = site.states(2);
        (states.len() == 2 && states.iter().all(|it| it.contains("in use"))).then_some(())
    })?;
    // The first one is gone without a word, and the server does not know. It stays connected
    // without the ports, which is where autossh ends for good.
    let silence = site.place.internet.silence(AGENT, 1, Direction::Both)?;
    let log = site.place.kill_agent(1)?;
    // Nobody visits meanwhile: a busy sshd forgets to ask whether its clients are there.
    wait::until("the second agent has the ports", PATIENCE, || {
        (site.states(2) == ["listening", "listening"]).then_some(())
    })
    .with_context(|| format!("{log}\n{}\n{}", site.place.logs(), site.server.log()))?;
    site.answered_by(8080, "http-a2")?;
    site.answered_by(8443, "https-a2")?;
    drop(silence);

    // A session that ends with a word is replaced at once.
    site.start_agent(1)?;
    site.place.kill_agent(2)?;
    site.answered_by(8443, "https-a1")
}

#[test]
fn wb02_a_tunnel_that_runs_is_followed_when_it_stops() -> anyhow::Result<()> {
    let Some(site) = Site::build("openssh-move", 2)? else { return Ok(()) };
    // What is there: a plain `ssh -R`, beside which ours waits.
    let mut old = site.server.client(site.place.agent(2));
    old.args(["-N", "-R", "127.0.0.1:8080:localhost:80", "-R", "127.0.0.1:8443:localhost:443"]);
    let old = Daemon::start("ssh -R", old)?;
    site.answered_by(8080, "http-a2").with_context(|| old.log())?;
    site.declare(site.server.host_key())?;
    site.publish()?;
    site.start_agent(1)?;
    wait::until("the agent says that the ports are in use", PATIENCE, || {
        let states = site.states(1);
        (states.len() == 2 && states.iter().all(|it| it.contains("in use"))).then_some(())
    })?;
    assert_eq!(site.answers(8443)?.as_deref(), Some("https-a2"), "the old tunnel is untouched");
    old.kill();
    site.answered_by(8080, "http-a1")?;
    site.answered_by(8443, "https-a1")
}

#[test]
fn wb02_a_server_with_another_key_is_not_logged_in_to() -> anyhow::Result<()> {
    let Some(site) = Site::build("openssh-impostor", 1)? else { return Ok(()) };
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";
    site.declare(other)?;
    site.publish()?;
    site.start_agent(1)?;
    wait::until("the agent says which keys they are", PATIENCE, || {
        let status = site.status(1);
        let error = status["lastError"].as_str()?;
        (error.matches("SHA256:").count() == 2 && error.contains("is pinned")).then_some(())
    })
    .with_context(|| site.place.logs())?;
    let log = site.server.log();
    assert!(!log.contains("Accepted"), "{log}");
    assert_eq!(site.answers(8080)?, None);
    // Corrected, it works without a restart.
    site.declare(site.server.host_key())?;
    site.answered_by(8080, "http-a1")
}
