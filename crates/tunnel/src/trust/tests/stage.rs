//! A gateway that has been adopted by a cluster, and connections to it that echo.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::peer::ServerHandshakes;
use crate::trust::credentials::Requested;
use crate::trust::verify::{ExpectedGateway, UnprovenGateway};
use crate::trust::{
    AgentTrust, Authorities, ClusterTrust, GatewayTrust, Identity, LocalSigner, Role,
    StateDirectory, TrustError, alpn, provider,
};

pub(super) struct Stage {
    pub(super) agent: Arc<AgentTrust>,
    pub(super) gateway: Arc<GatewayTrust>,
    pub(super) signer: Arc<LocalSigner>,
    pub(super) authorities: Authorities,
    pub(super) identity: Identity,
    port: u16,
    _directory: TempDir,
}

pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// A key and its certificate, of whoever.
pub(super) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// An agent of a cluster with an authority of its own.
pub(super) struct Stranger {
    authorities: Authorities,
    agent: Arc<AgentTrust>,
}

impl Stage {
    /// Certificates live for `lifetime`.
    pub(super) async fn new(lifetime: Duration) -> Self {
        let authorities = Authorities::create("home", now()).expect("an authority");
        let signer = LocalSigner::new(authorities.clone());
        let agent = AgentTrust::with_lifetime(Arc::clone(&signer) as _, "agent-0", lifetime);
        let agent = agent.await.expect("an agent");
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDirectory::open(directory.path()).expect("a state");
        let elsewhere = Authorities::create("elsewhere", now()).expect("an authority");
        let clusters = [("home", &authorities), ("elsewhere", &elsewhere)];
        let clusters = clusters.map(|(cluster, authorities)| ClusterTrust {
            cluster: cluster.to_owned(),
            gateway: "fra1".to_owned(),
            pins: authorities.pins(now()),
            offer: None,
        });
        let gateway = GatewayTrust::open(state, clusters.to_vec()).expect("a gateway");
        let identity = gateway.identity("home").expect("served");
        let request = gateway.request("home").expect("a request");
        let certificate = agent.certify(&identity, request).await.expect("signed");
        gateway.install("home", &certificate, now()).expect("taken");
        let port = echo(gateway.handshakes().expect("a configuration"));
        Self { agent, gateway, signer, authorities, identity, port, _directory: directory }
    }

    pub(super) async fn connect(&self) -> std::io::Result<Echo> {
        self.connect_as(&self.agent, "fra1").await
    }

    pub(super) async fn connect_as(
        &self,
        agent: &impl AsRef<AgentTrust>,
        gateway: &str,
    ) -> std::io::Result<Echo> {
        let agent = agent.as_ref();
        let gateway =
            Identity::new(agent.identity().cluster(), Role::Gateway, gateway).expect("a name");
        self.dial((*agent.config(&gateway)).clone(), gateway.server_name()).await
    }

    /// Shows this to a gateway that is believed whatever it is.
    pub(super) async fn connect_with(&self, shown: &Shown) -> std::io::Result<Echo> {
        let key = PrivatePkcs8KeyDer::from(shown.key.clone()).into();
        let config = client(Arc::new(UnprovenGateway));
        let config = config.with_client_auth_cert(shown.chain.clone(), key).expect("a key");
        self.dial(config, self.identity.server_name()).await
    }

    /// Shows nothing.
    pub(super) async fn connect_bare(&self) -> std::io::Result<Echo> {
        let config = client(Arc::new(UnprovenGateway)).with_no_client_auth();
        self.dial(config, self.identity.server_name()).await
    }

    /// Trusts gateways of this authority alone.
    pub(super) async fn connect_trusting(&self, authority: &Authorities) -> std::io::Result<Echo> {
        let expected = self.identity.clone();
        let verifier = ExpectedGateway { expected, authorities: authority.trusted(now()) };
        let config = client(Arc::new(verifier)).with_no_client_auth();
        self.dial(config, self.identity.server_name()).await
    }

    async fn dial(
        &self,
        mut config: ClientConfig,
        name: ServerName<'static>,
    ) -> std::io::Result<Echo> {
        config.alpn_protocols = vec![alpn::CONTROL.to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let mut echo = Echo(stream);
        // Whether the other side takes our certificate is known when it says something.
        echo.echo(b"?").await?;
        Ok(echo)
    }

    pub(super) async fn agent_of(&self, cluster: &str) -> Stranger {
        let authorities = Authorities::create(cluster, now()).expect("an authority");
        let agent = AgentTrust::new(LocalSigner::new(authorities.clone()), "agent-0").await;
        Stranger { authorities, agent: agent.expect("an agent") }
    }

    pub(super) fn agent_named(&self, _name: &str) -> Arc<AgentTrust> {
        Arc::clone(&self.agent)
    }

    pub(super) fn impostor_authority(&self) -> Authorities {
        Authorities::create("home", now()).expect("an authority")
    }

    /// A certificate of the cluster's own authority.
    pub(super) fn signed(&self, role: Role, name: &str) -> Shown {
        let identity = Identity::new("home", role, name).expect("an identity");
        signed(&self.authorities, &identity).expect("signed")
    }
}

impl Stranger {
    /// Its own authority says that it is an agent of this cluster, if it can say so.
    pub(super) fn forged_for(&self, cluster: &str) -> Shown {
        let identity = Identity::new(cluster, Role::Agent, "agent-0").expect("an identity");
        signed(&self.authorities, &identity).unwrap_or_else(|_| {
            // It signs for its own cluster alone; then with the certificate that it has.
            let own = self.agent.identity().clone();
            signed(&self.authorities, &own).expect("signed")
        })
    }
}

impl AsRef<AgentTrust> for Stranger {
    fn as_ref(&self) -> &AgentTrust {
        &self.agent
    }
}

fn signed(authorities: &Authorities, identity: &Identity) -> Result<Shown, TrustError> {
    let requested = Requested::new(identity)?;
    let day = Duration::from_secs(24 * 3600);
    let issued = authorities.sign(&requested.request, identity, day, now())?;
    let chain = std::iter::once(issued.certificate).chain(issued.authorities).collect();
    Ok(Shown { chain, key: requested.key.serialize_der() })
}

fn client(
    verifier: Arc<dyn ServerCertVerifier>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
}

/// A connection that sends back what it gets.
#[derive(Debug)]
pub(super) struct Echo(TlsStream<TcpStream>);

impl Echo {
    pub(super) async fn echo(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        self.0.read_exact(&mut back).await?;
        assert_eq!(back, bytes);
        Ok(())
    }

    /// The certificate that the gateway showed.
    pub(super) fn shown(&self) -> CertificateDer<'static> {
        let shown = self.0.get_ref().1.peer_certificates().expect("it shows one");
        shown[0].clone()
    }
}

/// Echoes whatever comes by a connection whose peer is somebody.
fn echo(handshakes: Arc<dyn ServerHandshakes>) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let listener = TcpListener::from_std(listener).expect("a runtime");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handshakes = Arc::clone(&handshakes);
            tokio::spawn(async move {
                let accepted = TlsAcceptor::from(handshakes.config()).accept(stream).await;
                let Ok(stream) = accepted else { return };
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                if handshakes.peer(chain).is_none() {
                    return;
                }
                let (mut read, mut write) = tokio::io::split(stream);
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    port
}
