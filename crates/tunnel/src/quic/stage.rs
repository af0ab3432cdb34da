//! A gateway and an agent for tests, with a wire between them that can be cut and moved.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tunnel_proto::message::{Open, Protocol};

use crate::acceptor::{Acceptor, AcceptorSettings, Arrival, Sockets};
use crate::dialler::{DiallerSettings, Endpoint};
use crate::link::Incoming;
use crate::peer::{ClientHandshakes, Identity, Role, ServerHandshakes};
use crate::session::{AgentSession, GatewaySession};
use crate::trust::provider;

/// How long a test waits for what must come.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// An authority for the length of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn leaf(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        roots
    }

    pub(crate) fn gateway(&self) -> Arc<Gateway> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let (chain, key) = self.leaf("gateway");
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(chain, key)
            .expect("a configuration");
        Arc::new(Gateway(Arc::new(config)))
    }

    pub(crate) fn agent(&self) -> Arc<Agent> {
        let (chain, key) = self.leaf("agent");
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.roots())
            .with_client_auth_cert(chain, key)
            .expect("a configuration");
        Arc::new(Agent(Arc::new(config)))
    }
}

pub(crate) struct Gateway(Arc<ServerConfig>);

impl ServerHandshakes for Gateway {
    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }

    fn peer(&self, _chain: &[CertificateDer<'_>]) -> Option<Identity> {
        Some(Identity::of("home", Role::Agent, "agent"))
    }
}

pub(crate) struct Agent(Arc<ClientConfig>);

impl ClientHandshakes for Agent {
    fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }

    fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from("gateway").expect("a name")
    }

    fn peer(&self, _chain: &[CertificateDer<'_>]) -> Option<Identity> {
        Some(Identity::of("home", Role::Gateway, "gateway"))
    }
}

/// Two ends and a wire.
pub(crate) struct Stage {
    pub(crate) acceptor: Acceptor,
    pub(crate) wire: Wire,
    settings: DiallerSettings,
    epoch: u64,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let authority = Authority::new();
        Self::with(authority.gateway(), authority.agent()).await
    }

    pub(crate) async fn with(gateway: Arc<Gateway>, agent: Arc<Agent>) -> Self {
        let sockets = Sockets::bind(&[([127, 0, 0, 1], 0).into()]).expect("sockets");
        let address = sockets.udp[0].local_addr().expect("bound");
        let settings = AcceptorSettings { gateway: "gateway".into(), ..Default::default() };
        let acceptor = Acceptor::start(sockets, gateway, settings).expect("accepts");
        let wire = Wire::new(address).await;
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: wire.address.port() };
        let settings = DiallerSettings::new(vec![endpoint], agent, "agent");
        Self { acceptor, wire, settings, epoch: 0 }
    }

    pub(crate) fn settings(&self) -> &DiallerSettings {
        &self.settings
    }

    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// The gateway's end of a session that is dialled now.
    pub(crate) async fn arrival(&mut self) -> GatewaySession {
        match soon(self.acceptor.next()).await {
            Some(Arrival::Session(gateway)) => *gateway,
            other => panic!("expected a session: {other:?}"),
        }
    }

    /// Both ends of a new session over QUIC.
    pub(crate) async fn session(&mut self) -> (GatewaySession, AgentSession) {
        let (settings, epoch) = (self.settings.clone(), self.next_epoch());
        let (agent, gateway) = tokio::join!(super::dial(&settings, epoch), self.arrival());
        (gateway, agent.expect("a session"))
    }
}

/// What does not pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    Nothing,
    Tcp,
    Udp,
}

/// Passes packets and connections on between an agent and a gateway: one port, UDP and TCP.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    cut: Arc<Mutex<Cut>>,
    far: Arc<Mutex<Arc<tokio::net::UdpSocket>>>,
    gateway: SocketAddr,
    agent: Arc<Mutex<Option<SocketAddr>>>,
    near: Arc<tokio::net::UdpSocket>,
    tasks: Vec<JoinHandle<()>>,
}

impl Wire {
    async fn new(gateway: SocketAddr) -> Self {
        let (near, listener) = both().await;
        let near = Arc::new(near);
        let mut wire = Self {
            address: near.local_addr().expect("bound"),
            cut: Arc::new(Mutex::new(Cut::Nothing)),
            far: Arc::new(Mutex::new(Arc::new(socket()))),
            gateway,
            agent: Arc::default(),
            near,
            tasks: Vec::new(),
        };
        let (near, far, agent) =
            (Arc::clone(&wire.near), Arc::clone(&wire.far), Arc::clone(&wire.agent));
        let cut = Arc::clone(&wire.cut);
        wire.tasks.push(tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = near.recv_from(&mut buffer).await {
                *agent.lock().expect("whole") = Some(from);
                let far = Arc::clone(&far.lock().expect("whole"));
                if *cut.lock().expect("whole") != Cut::Udp {
                    let _lost = far.send_to(&buffer[..length], gateway).await;
                }
            }
        }));
        wire.listen();
        let cut = Arc::clone(&wire.cut);
        wire.tasks.push(tokio::spawn(async move {
            // Those that are cut off are held, and nobody says a word to them.
            let mut held = Vec::new();
            while let Ok((mut agent, _)) = listener.accept().await {
                if *cut.lock().expect("whole") == Cut::Tcp {
                    held.push(agent);
                    continue;
                }
                tokio::spawn(async move {
                    let mut gateway = TcpStream::connect(gateway).await?;
                    tokio::io::copy_bidirectional(&mut agent, &mut gateway).await
                });
            }
        }));
        wire
    }

    /// Passes on what comes to the present far end.
    fn listen(&mut self) {
        let far = Arc::clone(&self.far.lock().expect("whole"));
        let (near, agent) = (Arc::clone(&self.near), Arc::clone(&self.agent));
        let cut = Arc::clone(&self.cut);
        self.tasks.push(tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, _)) = far.recv_from(&mut buffer).await {
                let to = *agent.lock().expect("whole");
                let passes = *cut.lock().expect("whole") != Cut::Udp;
                if let (Some(to), true) = (to, passes) {
                    let _lost = near.send_to(&buffer[..length], to).await;
                }
            }
        }));
    }

    /// Drops packets and holds new connections from now on, without a word to anybody.
    pub(crate) fn cut(&self, what: Cut) {
        *self.cut.lock().expect("whole") = what;
    }

    /// Lets the agent come from another address from now on.
    pub(crate) fn move_away(&mut self) {
        *self.far.lock().expect("whole") = Arc::new(socket());
        self.listen();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.address, self.gateway)
    }
}

/// One port for UDP and for TCP.
async fn both() -> (tokio::net::UdpSocket, TcpListener) {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        if let Ok(socket) = UdpSocket::bind(("127.0.0.1", port)) {
            return (tuned(socket), listener);
        }
    }
}

fn socket() -> tokio::net::UdpSocket {
    tuned(UdpSocket::bind(("127.0.0.1", 0)).expect("a free port"))
}

fn tuned(socket: UdpSocket) -> tokio::net::UdpSocket {
    super::setup::widen(&socket);
    socket.set_nonblocking(true).expect("a socket");
    tokio::net::UdpSocket::from_std(socket).expect("a socket")
}

/// A connection that is there, and its other end.
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let dialled = TcpStream::connect(listener.local_addr().expect("bound"));
    let (dialled, accepted) = tokio::join!(dialled, listener.accept());
    (dialled.expect("connected"), accepted.expect("connected").0)
}

/// What a visitor wants.
pub(crate) fn open(protocol: Protocol) -> Open {
    Open {
        backend: "tcp:web/blog:443".into(),
        protocol,
        visitor: ([192, 0, 2, 9], 5000).into(),
        dialled: ([192, 0, 2, 1], 443).into(),
        server_name: None,
        probe: false,
    }
}

pub(crate) async fn next(agent: &mut AgentSession) -> Incoming {
    soon(agent.flows.recv()).await.expect("a flow")
}

/// Sends everything, says that it is over, and returns what comes back.
pub(crate) async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let sent = async {
        write.write_all(bytes).await?;
        write.shutdown().await
    };
    let (sent, received) = soon(async { tokio::join!(sent, read.read_to_end(&mut answer)) }).await;
    sent.expect("sent");
    received.expect("received");
    answer
}

/// What `future` comes to, which must be soon.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let at = std::panic::Location::caller();
    async move {
        let Ok(output) = tokio::time::timeout(SOON, future).await else {
            panic!("nothing happened at {at}");
        };
        output
    }
}
