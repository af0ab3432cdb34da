//! A plain OpenSSH server as a gateway (WB-02), with everything that befalls such a tunnel.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use testkit::sshd::{self, SshServer};
use testkit::{Lab, Machine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tunnel::link::{Ending, Meter};
use tunnel::peer::{Identity, Role};
use tunnel::session::{AgentSession, Ended};
use tunnel::ssh::{HostKey, SshError, Timing, dial};
use tunnel_proto::message::{
    Desired, Limits, PortState, Protocol, PublishedPort, Range, Report, Route, ToAgent, ToGateway,
};

const SERVER: &str = "10.9.0.2";
/// Another address of the same server.
const OTHER: &str = "10.9.0.4";
const PATIENCE: Duration = Duration::from_secs(20);

/// What the account on the gateway may do in the predecessor's set-up, and no more: no shell.
const CONFIGURATION: &str = "\
ListenAddress 10.9.0.4
ClientAliveInterval 1
ClientAliveCountMax 3
AllowTcpForwarding remote
GatewayPorts clientspecified
PermitTTY no
PermitListen 127.0.0.1:8080 127.0.0.1:8443 *:9000 127.0.0.1:9001 127.0.0.1:9002
ForceCommand /bin/false
";

struct Site {
    // Server and machines go before the lab.
    server: SshServer,
    gateway: Machine,
    agent: Machine,
    _lab: Lab,
}

impl Site {
    #[track_caller]
    fn new(name: &str) -> Option<Self> {
        let lab = testkit::require(sshd::available().and_then(|()| Lab::as_root(name)))?;
        Some(Self::build(lab).expect("the site is built"))
    }

    fn build(lab: Lab) -> anyhow::Result<Self> {
        let agent = lab.machine("agent")?;
        let gateway = lab.machine("gateway")?;
        lab.link(
            &agent,
            "eth0",
            &["10.9.0.1/24"],
            &gateway,
            "eth0",
            &["10.9.0.2/24", "10.9.0.4/24"],
        )?;
        let server = sshd::Options::new(&gateway, SERVER.parse()?)
            .user("tunnel")
            .shell("/usr/sbin/nologin")
            .key_options("restrict,port-forwarding")
            .configuration(CONFIGURATION)
            .start()?;
        Ok(Self { server, gateway, agent, _lab: lab })
    }

    fn settings(&self) -> tunnel::ssh::SshServer {
        let key = std::fs::read_to_string(self.server.private_key()).expect("the key is there");
        tunnel::ssh::SshServer {
            endpoints: vec![tunnel::dialler::Endpoint { host: SERVER.to_owned(), port: 22 }],
            user: "tunnel".to_owned(),
            host_key: self.server.host_key().parse().expect("a key"),
            client_key: key.parse().expect("a key"),
            timing: Timing {
                connect: Duration::from_secs(5),
                ping_after: Duration::from_millis(200),
                dead_after: Duration::from_secs(1),
            },
        }
    }

    async fn dial(&self) -> AgentSession {
        dial(&self.settings(), gateway(), "agent-0").await.expect("a session")
    }

    /// Runs `test` on the agent's machine.
    fn inside<T: Send>(&self, test: impl AsyncFnOnce() -> T + Send) -> T {
        let inside = self.agent.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test())
        });
        inside.expect("the lab was made by root")
    }

    /// What a visitor on the gateway's own machine gets; the predecessor's forwarder is one.
    async fn visit(&self, to: &str) -> std::io::Result<String> {
        let (machine, to) = (self.gateway.clone(), to.to_owned());
        let visit = move || {
            let mut stream = std::net::TcpStream::connect(to)?;
            stream.write_all(b"hello")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut said = String::new();
            stream.read_to_string(&mut said).map(|_| said)
        };
        let inside = tokio::task::spawn_blocking(move || machine.enter(visit));
        inside.await.expect("it ends").expect("the lab was made by root")
    }

    fn listens(&self, port: u16) -> bool {
        let filter = format!("sport = :{port}");
        let listening = self.gateway.run("ss", &["-Hltn", &filter]).expect("ss runs");
        !listening.trim().is_empty()
    }
}

fn gateway() -> Identity {
    Identity::of("home", Role::Gateway, "old-vps")
}

fn port(address: Option<&str>, number: u16, backend: &str) -> PublishedPort {
    PublishedPort {
        address: address.map(|it| it.parse().expect("an address")),
        port: number,
        protocol: Protocol::Tcp,
        owner: "Service web/blog".to_owned(),
        route: Route::Backend(backend.to_owned()),
        allow_from: Vec::new(),
        limits: Limits::default(),
        idle_seconds: 0,
    }
}

fn wish(session: &AgentSession, revision: u64, ports: Vec<PublishedPort>) {
    let desired = Desired { revision, ports, quota: None };
    session.control.send(ToGateway::Desired(desired)).expect("the session is there");
}

/// Waits for a report that is as it should be.
async fn report(session: &mut AgentSession, good: impl Fn(&Report) -> bool) -> Report {
    let mut last = None;
    let found = async {
        loop {
            match session.control.receive().await {
                Some(ToAgent::Report(report)) if good(&report) => return report,
                Some(ToAgent::Report(report)) => last = Some(report),
                Some(_) => {}
                None => panic!("the session has ended: {:?}", session.control.status().ended()),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(report) => report,
        Err(_) => panic!("not in time; last: {last:?}"),
    }
}

fn all_listen(count: usize) -> impl Fn(&Report) -> bool {
    move |report| {
        report.ports.len() == count
            && report.ports.iter().all(|it| it.state == PortState::Listening)
    }
}

/// Answers visitors with the key of the backend that they are for, in front of what they say.
async fn answer(flows: &mut tokio::sync::mpsc::Receiver<tunnel::link::Incoming>) {
    while let Some(incoming) = flows.recv().await {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let says = format!("{}|{}|", incoming.open.backend, incoming.open.visitor.ip());
        tokio::spawn(async move {
            let (mut backend, _) = listener.accept().await.expect("a visitor");
            backend.write_all(says.as_bytes()).await.expect("it hears");
            let mut all = Vec::new();
            backend.read_to_end(&mut all).await.expect("it speaks");
            backend.write_all(&all).await.expect("it hears");
        });
        tokio::spawn(async move {
            let flow = incoming.answer.accept().await.expect("the visitor is there");
            let plain = TcpStream::connect(at).await.expect("connected");
            let meter = std::sync::Arc::new(Meter::default());
            let ending = flow.relay(plain, bytes::Bytes::new(), meter).await;
            assert_eq!(ending, Ending::Closed);
        });
    }
}

#[test]
fn wb02_the_predecessors_two_forwards_are_reproduced() {
    let Some(site) = Site::new("ssh-forwards") else { return };
    site.inside(async || {
        let mut session = site.dial().await;
        // -R 8080:localhost:80 -R 8443:localhost:443
        let here = Some("127.0.0.1");
        let ports = vec![port(here, 8080, "localhost:80"), port(here, 8443, "localhost:443")];
        wish(&session, 7, ports);
        let said = report(&mut session, all_listen(2)).await;
        assert_eq!(said.revision, 7);
        let AgentSession { mut flows, control, .. } = session;
        let visits = async {
            for (port, backend) in [(8080, "localhost:80"), (8443, "localhost:443")] {
                let said = site.visit(&format!("127.0.0.1:{port}")).await.expect("visited");
                assert_eq!(said, format!("{backend}|127.0.0.1|hello"));
            }
        };
        tokio::select! {
            () = visits => {}
            () = answer(&mut flows) => panic!("the session ended"),
        }
        drop(control);
    });
    // Nothing stays behind.
    testkit::wait::until("the forwards are gone", PATIENCE, || {
        (!site.listens(8080) && !site.listens(8443)).then_some(())
    })
    .expect("they are gone");
}

#[test]
fn a_port_of_a_ghost_is_taken_as_soon_as_the_server_lets_go() {
    let Some(site) = Site::new("ssh-ghost") else { return };
    site.inside(async || {
        let mut first = site.dial().await;
        wish(&first, 1, vec![port(Some("127.0.0.1"), 8080, "b")]);
        report(&mut first, all_listen(1)).await;
        // Every packet vanishes on this way: neither side hears of the other's end.
        let cut = site.agent.black_hole(SERVER.parse().expect("an address"));
        let _cut = cut.expect("nft drops packets");
        let began = std::time::Instant::now();
        let ended = first.control.status().until_ended().await;
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(matches!(ended, Ended::There | Ended::Broken(_)), "{ended:?}");
        let mut settings = site.settings();
        settings.endpoints[0].host = OTHER.to_owned();
        let second = dial(&settings, gateway(), "agent-0").await;
        let mut second = second.expect("the other way is open");
        wish(&second, 2, vec![port(Some("127.0.0.1"), 8080, "b")]);
        let refused = report(&mut second, |it| {
            it.ports.iter().any(|it| matches!(it.state, PortState::InUse(_)))
        });
        let refused = refused.await;
        let [it] = refused.ports.as_slice() else { panic!("{refused:?}") };
        let PortState::InUse(why) = &it.state else { panic!("{refused:?}") };
        assert!(why.contains("8080") && why.contains("earlier session"), "{why}");
        report(&mut second, all_listen(1)).await;
        assert!(site.listens(8080));
    });
}

#[test]
fn a_second_agent_takes_over_when_the_first_is_gone() {
    let Some(site) = Site::new("ssh-standby") else { return };
    site.inside(async || {
        let (mut first, mut second) = (site.dial().await, site.dial().await);
        for session in [&first, &second] {
            wish(session, 1, vec![port(Some("127.0.0.1"), 8080, "b")]);
        }
        report(&mut first, all_listen(1)).await;
        report(&mut second, |it| it.ports.iter().any(|it| matches!(it.state, PortState::InUse(_))))
            .await;
        drop(first);
        report(&mut second, all_listen(1)).await;
    });
}

#[test]
fn wishes_come_and_go_without_touching_the_others() {
    let Some(site) = Site::new("ssh-wishes") else { return };
    site.inside(async || {
        let mut session = site.dial().await;
        let here = Some("127.0.0.1");
        wish(&session, 1, vec![port(here, 8080, "a"), port(here, 8443, "b")]);
        report(&mut session, all_listen(2)).await;
        let mut udp = port(here, 9001, "c");
        udp.protocol = Protocol::Udp;
        let mut limited = port(here, 9002, "d");
        limited.limits.open = 1;
        wish(&session, 2, vec![port(here, 8443, "b"), port(None, 9000, "e"), udp, limited]);
        let said = report(&mut session, |it| {
            it.revision == 2
                && it.ports.iter().filter(|it| it.state == PortState::Listening).count() == 2
        });
        let said = said.await;
        let failed = |number: u16| {
            let port = said.ports.iter().find(|it| it.port == number).expect("reported");
            match &port.state {
                PortState::Failed(why) => why.clone(),
                other @ (PortState::Listening | PortState::NotGranted(_) | PortState::InUse(_)) => {
                    panic!("{number}: {other:?}")
                }
            }
        };
        assert!(failed(9001).contains("TCP only"));
        assert!(failed(9002).contains("limits"));
        testkit::wait::until("8080 is given up", PATIENCE, || (!site.listens(8080)).then_some(()))
            .expect("given up");
        assert!(site.listens(8443) && site.listens(9000));
    });
}

#[test]
fn only_allowed_visitors_reach_a_backend() {
    let Some(site) = Site::new("ssh-allowed") else { return };
    site.inside(async || {
        let mut session = site.dial().await;
        let mut everywhere = port(None, 9000, "b");
        let only: IpAddr = "10.9.0.1".parse().expect("an address");
        everywhere.allow_from = vec![Range { address: only, prefix: 32 }];
        wish(&session, 1, vec![everywhere]);
        report(&mut session, all_listen(1)).await;
        let AgentSession { mut flows, control, .. } = session;
        let visits = async {
            let to: SocketAddr = format!("{SERVER}:9000").parse().expect("an address");
            let mut allowed = TcpStream::connect(to).await.expect("connected");
            allowed.write_all(b"hello").await.expect("sent");
            allowed.shutdown().await.expect("sent");
            let mut said = String::new();
            allowed.read_to_string(&mut said).await.expect("an answer");
            assert_eq!(said, "b|10.9.0.1|hello");
            let refused = site.visit(&format!("{SERVER}:9000")).await;
            assert_eq!(refused.unwrap_or_default(), "", "from the gateway itself: not allowed");
        };
        tokio::select! {
            () = visits => {}
            () = answer(&mut flows) => panic!("the session ended"),
        }
        drop(control);
    });
}

#[test]
fn a_server_with_another_key_gets_no_login() {
    let Some(site) = Site::new("ssh-impostor") else { return };
    site.inside(async || {
        let mut settings = site.settings();
        let other = "ssh-ed25519 \
                     AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";
        settings.host_key = other.parse::<HostKey>().expect("a key");
        let refused = dial(&settings, gateway(), "agent-0").await;
        assert!(matches!(refused, Err(SshError::HostKey { .. })), "{refused:?}");
        let mut settings = site.settings();
        settings.user = "root".to_owned();
        let refused = dial(&settings, gateway(), "agent-0").await;
        assert!(matches!(refused, Err(SshError::Login { .. })), "{refused:?}");
    });
    assert!(!site.server.log().contains("Accepted publickey for tunnel"), "not even a login");
}
