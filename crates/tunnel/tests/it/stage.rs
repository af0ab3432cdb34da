//! A gateway and an agent that know each other, a session between them, visitors and backends.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tunnel::acceptor::{Acceptor, AcceptorSettings, Arrival, Sockets};
use tunnel::auto::Auto;
use tunnel::dialler::{DiallerSettings, Endpoint};
use tunnel::link::{DatagramFlow, Ending, Flow, Incoming, Meter, OpenError};
use tunnel::session::{AgentSession, GatewaySession};
use tunnel::trust::{
    AgentTrust, Authorities, ClusterTrust, GatewayTrust, Identity, LocalSigner, Pin, Role,
    Signer as _, StateDirectory,
};
use tunnel_proto::message::{Certificate, Open, Protocol};

/// How long anything may take that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for what should happen soon.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, happens).await {
        Ok(happened) => happened,
        Err(_) => panic!("not within {SOON:?}: {what}"),
    }
}

/// Everything that both sides need to trust each other.
pub(crate) struct Trust {
    pub(crate) agent: Arc<AgentTrust>,
    pub(crate) gateway: Arc<GatewayTrust>,
    _directory: TempDir,
}

impl Trust {
    /// A gateway `fra1` and an agent `agent-0` of the cluster `home`.
    pub(crate) async fn new() -> Self {
        let now = SystemTime::now();
        let signer = LocalSigner::new(Authorities::create("home", now).expect("an authority"));
        let agent = AgentTrust::new(Arc::clone(&signer) as _, "agent-0").await.expect("an agent");
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path().join("state")).expect("a state");
        let cluster = ClusterTrust {
            cluster: "home".to_owned(),
            gateway: "fra1".to_owned(),
            pins: agent.authorities().iter().map(Pin::of).collect(),
            offer: None,
        };
        let gateway = GatewayTrust::open(state, vec![cluster]).expect("a gateway");
        let request = gateway.request("home").expect("a request");
        let identity = Identity::new("home", Role::Gateway, "fra1").expect("an identity");
        let issued = signer.sign(request, identity, agent.lifetime()).await.expect("a certificate");
        let certificate = Certificate {
            certificate: issued.certificate.to_vec(),
            authorities: issued.authorities.iter().map(|it| it.to_vec().into()).collect(),
        };
        gateway.install("home", &certificate, SystemTime::now()).expect("it fits");
        Self { agent, gateway, _directory: directory }
    }

    /// The gateway's entrance on these sockets.
    pub(crate) fn accept(&self, sockets: Sockets) -> Acceptor {
        let settings = AcceptorSettings { gateway: "fra1".to_owned(), ..Default::default() };
        let handshakes = self.gateway.handshakes().expect("a configuration");
        Acceptor::start(sockets, handshakes, settings).expect("an entrance")
    }

    /// How the agent dials the gateway there.
    pub(crate) fn dialling(&self, address: SocketAddr) -> DiallerSettings {
        let endpoint = Endpoint { host: address.ip().to_string(), port: address.port() };
        let handshakes = self.agent.handshakes("fra1").expect("a configuration");
        DiallerSettings::new(vec![endpoint], handshakes, "agent-0")
    }
}

/// By which carrier.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Auto,
    Quic,
    Tls,
}

impl By {
    pub(crate) async fn dial(self, settings: &DiallerSettings, epoch: u64) -> AgentSession {
        match self {
            Self::Auto => Auto::new().dial(settings, epoch).await.expect("a session"),
            Self::Quic => tunnel::quic::dial(settings, epoch).await.expect("a session"),
            Self::Tls => tunnel::dialler::dial(settings, epoch).await.expect("a session"),
        }
    }
}

/// A session, seen from both ends.
pub(crate) struct Stage {
    pub(crate) trust: Trust,
    pub(crate) acceptor: Acceptor,
    pub(crate) gateway: GatewaySession,
    pub(crate) agent: AgentSession,
    by: By,
}

/// An open flow of bytes, with whoever uses it.
pub(crate) struct Line {
    pub(crate) visitor: TcpStream,
    pub(crate) backend: TcpStream,
    /// How it ends for the gateway, and for the agent.
    pub(crate) ending: [JoinHandle<Ending>; 2],
    pub(crate) meters: [Arc<Meter>; 2],
}

impl Stage {
    pub(crate) async fn new(by: By) -> Self {
        let trust = Trust::new().await;
        let sockets = Sockets::bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).expect("a port");
        let mut acceptor = trust.accept(sockets);
        let settings = trust.dialling(acceptor.addresses()[0]);
        let (agent, arrival) = tokio::join!(by.dial(&settings, 1), acceptor.next());
        let gateway = session(arrival);
        Self { trust, acceptor, gateway, agent, by }
    }

    /// Another session of the same agent.
    pub(crate) async fn again(&mut self, epoch: u64) -> (GatewaySession, AgentSession) {
        let settings = self.trust.dialling(self.acceptor.addresses()[0]);
        let dialled = self.by.dial(&settings, epoch);
        let (agent, arrival) = tokio::join!(dialled, self.acceptor.next());
        (session(arrival), agent)
    }

    /// Opens a flow; `answer` is the agent's part.
    pub(crate) async fn open<A: Future>(
        &mut self,
        backend: &str,
        protocol: Protocol,
        answer: impl FnOnce(Incoming) -> A,
    ) -> (Result<Box<dyn Flow>, OpenError>, A::Output) {
        let opened = self.gateway.link.open(open(backend, protocol));
        let answered = async {
            let incoming = self.agent.flows.recv().await.expect("a flow");
            assert_eq!(incoming.open, open(backend, protocol));
            answer(incoming).await
        };
        soon("a flow", async { tokio::join!(opened, answered) }).await
    }

    /// A flow of bytes between a visitor and a backend.
    pub(crate) async fn line(&mut self) -> Line {
        let (visitor, plain) = pair().await;
        let (backend, agents) = pair().await;
        let meters = [Arc::<Meter>::default(), Arc::default()];
        let (flow, agent) = self
            .open("line", Protocol::Tcp, async |incoming| {
                incoming.answer.accept().await.expect("the gateway waits")
            })
            .await;
        let flow = flow.expect("the agent has accepted");
        let gateway = flow.relay(plain, Bytes::new(), Arc::clone(&meters[0]));
        let agent = agent.relay(agents, Bytes::new(), Arc::clone(&meters[1]));
        let ending = [tokio::spawn(gateway), tokio::spawn(agent)];
        Line { visitor, backend, ending, meters }
    }

    /// A flow of datagrams: the gateway's end and the agent's.
    pub(crate) async fn datagrams(&mut self) -> [Box<dyn DatagramFlow>; 2] {
        let (flow, agent) = self
            .open("datagrams", Protocol::Udp, async |incoming| {
                incoming.answer.accept().await.expect("the gateway waits")
            })
            .await;
        [flow.expect("the agent has accepted").into_datagrams(), agent.into_datagrams()]
    }
}

impl Line {
    /// How it ended for the gateway and for the agent.
    pub(crate) async fn ended(self) -> [Ending; 2] {
        let [gateway, agent] = self.ending;
        let both = async { tokio::join!(gateway, agent) };
        let (gateway, agent) = soon("the end of a flow", both).await;
        [gateway.expect("no panic"), agent.expect("no panic")]
    }
}

pub(crate) fn session(arrival: Option<Arrival>) -> GatewaySession {
    match arrival {
        Some(Arrival::Session(session)) => *session,
        other => panic!("expected a session, found {other:?}"),
    }
}

pub(crate) fn open(backend: &str, protocol: Protocol) -> Open {
    Open {
        backend: backend.to_owned(),
        protocol,
        visitor: ([192, 0, 2, 1], 50_000).into(),
        dialled: ([203, 0, 113, 7], 443).into(),
        server_name: None,
        probe: false,
    }
}

/// Two ends of a TCP connection.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (dialled, accepted) = (dialled.expect("it listens"), accepted.expect("it dials").0);
    for end in [&dialled, &accepted] {
        end.set_nodelay(true).expect("a TCP socket");
    }
    (dialled, accepted)
}

/// Many flows at once: an agent that connects each to an echo.
pub(crate) fn echo_everything(mut flows: mpsc::Receiver<Incoming>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let echoes = Arc::new(Mutex::new(Vec::new()));
        while let Some(incoming) = flows.recv().await {
            let echoes = Arc::clone(&echoes);
            tokio::spawn(async move {
                let (backend, plain) = pair().await;
                let flow = incoming.answer.accept().await.expect("the gateway waits");
                let echo = tokio::spawn(async move {
                    let (mut read, mut write) = backend.into_split();
                    let _ends = tokio::io::copy(&mut read, &mut write).await;
                });
                echoes.lock().await.push(echo);
                flow.relay(plain, Bytes::new(), Arc::default()).await;
            });
        }
    })
}
