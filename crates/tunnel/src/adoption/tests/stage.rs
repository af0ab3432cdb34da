//! A gateway, an agent, and what is between them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};
use tunnel_proto::message::{ToAgent, ToGateway};

use super::{AdoptionError, adopt, dial, serve};
use crate::adoption::EXPORTER_LABEL;
use crate::dialler::Endpoint;
use crate::peer::ServerHandshakes;
use crate::session::{Adoption, Channel, Control, Status};
use crate::trust::{
    AgentTrust, Authorities, ClusterTrust, GatewayTrust, Identity, LocalSigner, OneTimeSecret, Pin,
    SecretOffer, StateDirectory, alpn, system_clock,
};

type Side = Adoption<ToAgent, ToGateway>;

pub(super) struct Stage {
    pub(super) agent: Arc<AgentTrust>,
    pub(super) gateway: Arc<GatewayTrust>,
    configuration: ClusterTrust,
    directory: Arc<TempDir>,
    port: u16,
    arrivals: Arc<Mutex<mpsc::Receiver<Side>>>,
}

/// The secret of every stage.
pub(super) fn secret() -> OneTimeSecret {
    OneTimeSecret::from_bytes(&[7; 32]).expect("32 bytes")
}

/// An agent of a cluster with an authority of its own.
pub(super) async fn cluster(name: &str, agent: &str) -> Arc<AgentTrust> {
    let authorities = Authorities::create(name, SystemTime::now()).expect("an authority");
    AgentTrust::new(LocalSigner::new(authorities), agent).await.expect("an agent")
}

impl Stage {
    pub(super) async fn new(name: &str, valid: Duration, redemptions: u32) -> Self {
        let agent = cluster(name, "agent-0").await;
        let expires = system_clock() + valid;
        let configuration = ClusterTrust {
            cluster: name.to_owned(),
            gateway: "fra1".to_owned(),
            pins: agent.authorities().iter().map(Pin::of).collect(),
            offer: Some(SecretOffer { hash: secret().hash(), expires, redemptions }),
        };
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        Self::start(agent, configuration, directory)
    }

    fn start(agent: Arc<AgentTrust>, configuration: ClusterTrust, directory: Arc<TempDir>) -> Self {
        let state = StateDirectory::open(directory.path().join("state")).expect("a state");
        let gateway = GatewayTrust::open(state, vec![configuration.clone()]).expect("a gateway");
        let (port, arrivals) = listen(gateway.handshakes().expect("a configuration"));
        let arrivals = Arc::new(Mutex::new(arrivals));
        Self { agent, gateway, configuration, directory, port, arrivals }
    }

    /// The same machine, started again.
    pub(super) fn restarted(&self) -> Self {
        let directory = Arc::clone(&self.directory);
        Self::start(Arc::clone(&self.agent), self.configuration.clone(), directory)
    }

    /// Another machine with the same start data.
    pub(super) fn replaced(&self) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        Self::start(Arc::clone(&self.agent), self.configuration.clone(), directory)
    }

    pub(super) async fn another_agent(&self, name: &str) -> Arc<AgentTrust> {
        AgentTrust::new(Arc::clone(self.agent.signer()), name).await.expect("an agent")
    }

    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        at(self.port)
    }

    /// Both sides of an adoption, to their ends.
    pub(super) async fn adopt(
        &self,
        secret: &OneTimeSecret,
    ) -> (Result<(), AdoptionError>, Result<Identity, AdoptionError>) {
        self.adopt_at(self.port, secret).await
    }

    pub(super) async fn adopt_at(
        &self,
        port: u16,
        secret: &OneTimeSecret,
    ) -> (Result<(), AdoptionError>, Result<Identity, AdoptionError>) {
        let served = self.serving();
        let agent = match dial(&at(port), &self.agent, "fra1").await {
            Ok(adoption) => adopt(adoption, &self.agent, secret.clone(), async { Ok(()) }).await,
            Err(error) => Err(error),
        };
        (agent, served.await.expect("it ends"))
    }

    /// The gateway's side of the next adoption.
    pub(super) fn serving(&self) -> JoinHandle<Result<Identity, AdoptionError>> {
        let (arrivals, trust) = (Arc::clone(&self.arrivals), Arc::clone(&self.gateway));
        tokio::spawn(async move {
            let arrived = arrivals.lock().await.recv().await.expect("somebody comes");
            serve(arrived, &trust).await
        })
    }

    /// An agent's side that has said nothing yet, and the gateway's to its end.
    pub(super) async fn begin(
        &self,
        agent: &AgentTrust,
    ) -> (Adoption<ToGateway, ToAgent>, JoinHandle<Result<Identity, AdoptionError>>) {
        let served = self.serving();
        let adoption = dial(&self.endpoints(), agent, "fra1").await.expect("dialled");
        (adoption, served)
    }

    pub(super) fn spawn_adopt(&self, port: u16) -> JoinHandle<Result<(), AdoptionError>> {
        let agent = Arc::clone(&self.agent);
        tokio::spawn(async move {
            let adoption = dial(&at(port), &agent, "fra1").await?;
            adopt(adoption, &agent, secret(), async { Ok(()) }).await
        })
    }

    /// A gateway that knows neither secret nor hash. Returns its port and who comes.
    pub(super) fn impostor(&self) -> (u16, mpsc::Receiver<Side>) {
        let directory = self.directory.path().join("impostor");
        let state = StateDirectory::open(directory).expect("a state");
        let configuration = ClusterTrust { offer: None, ..self.configuration.clone() };
        let gateway = GatewayTrust::open(state, vec![configuration]).expect("a gateway");
        listen(gateway.handshakes().expect("a configuration"))
    }

    /// A control connection with certificates on both sides.
    pub(super) async fn connect(
        &self,
        agent: &Arc<AgentTrust>,
    ) -> std::io::Result<client::TlsStream<TcpStream>> {
        let handshakes = agent.handshakes("fra1").expect("a name");
        let mut config = (*handshakes.config()).clone();
        config.alpn_protocols = vec![alpn::CONTROL.to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let connector = TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(handshakes.server_name(), stream).await?;
        // What the gateway thinks of our certificate comes after the handshake (RFC 8446 section
        // 4.4.2.4): it closes in order, or with an alert.
        tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await?;
        Ok(stream)
    }

    /// Every file of the gateway and its mode.
    pub(super) fn files(&self) -> Vec<(String, u32)> {
        let mut files = Vec::new();
        walk(self.directory.path(), &mut files);
        files
    }
}

fn walk(directory: &Path, files: &mut Vec<(String, u32)>) {
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let metadata = entry.metadata().expect("it is there");
        files.push((entry.path().display().to_string(), metadata.permissions().mode()));
        if metadata.is_dir() {
            walk(&entry.path(), files);
        }
    }
}

fn at(port: u16) -> Vec<Endpoint> {
    vec![Endpoint { host: "127.0.0.1".to_owned(), port }]
}

/// Accepts with TLS; whoever comes to adopt is handed over, everybody else closed in order.
fn listen(handshakes: Arc<dyn ServerHandshakes>) -> (u16, mpsc::Receiver<Side>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let listener = TcpListener::from_std(listener).expect("a runtime");
    let (sender, arrivals) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (handshakes, sender) = (Arc::clone(&handshakes), sender.clone());
            tokio::spawn(async move {
                if let Some(side) = accept(stream, &*handshakes).await {
                    let _gone = sender.send(side).await;
                }
            });
        }
    });
    (port, arrivals)
}

async fn accept(stream: TcpStream, handshakes: &dyn ServerHandshakes) -> Option<Side> {
    let address = stream.peer_addr().ok()?;
    let mut stream = TlsAcceptor::from(handshakes.config()).accept(stream).await.ok()?;
    let connection = stream.get_ref().1;
    let peer = handshakes.peer(connection.peer_certificates()?);
    if connection.alpn_protocol() != Some(alpn::ADOPT) {
        let _gone = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
        return None;
    }
    let exporter = connection.export_keying_material([0; 32], EXPORTER_LABEL, None).ok()?;
    let control = Control::start(Channel::over(stream), Status::new());
    Some(Adoption { address, peer: peer?, exporter, control })
}

/// A man in the middle: ends the agent's TLS session, has one of his own with the gateway, and
/// passes on every message. Returns his port.
pub(super) async fn relay(stage: &Stage, thief: Arc<AgentTrust>) -> u16 {
    let (port, mut arrivals) = stage.impostor();
    let gateway = stage.endpoints();
    tokio::spawn(async move {
        let mut agent = arrivals.recv().await.expect("the agent comes");
        let mut there = dial(&gateway, &thief, "fra1").await.expect("dialled");
        // Each direction until its end.
        let pass = async {
            loop {
                tokio::select! {
                    message = agent.control.receive() => there.control.send(message?).ok()?,
                    message = there.control.receive() => agent.control.send(message?).ok()?,
                }
            }
        };
        let _ended: Option<()> = pass.await;
    });
    port
}
