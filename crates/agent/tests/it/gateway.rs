//! A gateway's entrance that does what a test wants, and an agent with manifests that dials it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::{AuthoritySource, Settings, SourceSettings};
use anyhow::Context as _;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tunnel::acceptor::{Acceptor, AcceptorSettings, Arrival, Sockets};
use tunnel::link::{Ending, Flow};
use tunnel::session::GatewaySession;
use tunnel::trust::{
    AUTHORITY_FILE, AgentTrust, Authorities, ClusterTrust, GatewayTrust, LocalSigner,
    StateDirectory,
};
use tunnel_proto::message::{Open, Protocol, ToGateway};

/// How long anything may take that should happen at once. Generous: other builds run beside.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits for what should happen soon.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, happens).await {
        Ok(happened) => happened,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}

/// The gateway `fra1`, an agent, and a backend that the Service `web/blog` leads to.
pub(crate) struct Site {
    pub(crate) authorities: Authorities,
    pub(crate) backend: TcpListener,
    key: String,
    acceptor: Acceptor,
    page: SocketAddr,
    directory: TempDir,
    agent: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

impl Site {
    /// Starts everything.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        Self::open_with("", "tcp:web/blog:443+host").await
    }

    /// The same with one more annotation of the Service, which makes this the key of the backend.
    pub(crate) async fn open_with(annotation: &str, key: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let authorities = Authorities::create("home", SystemTime::now())?;
        let handshakes = adopted(&authorities, directory.path()).await?.handshakes()?;
        let tunnel = std::net::TcpListener::bind("127.0.0.1:0")?;
        let dialled = tunnel.local_addr()?.port();
        let sockets = Sockets { tcp: vec![tunnel], ..Sockets::default() };
        let settings = AcceptorSettings { gateway: "fra1".to_owned(), ..Default::default() };
        let acceptor = Acceptor::start(sockets, handshakes, settings)?;
        let backend = TcpListener::bind("127.0.0.1:0").await?;
        let target = backend.local_addr()?.port();
        let manifests = directory.path().join("manifests");
        std::fs::create_dir(&manifests)?;
        std::fs::write(manifests.join("all.yaml"), manifest(dialled, target, annotation))?;
        let page = free_address()?;
        let settings = Settings {
            source: SourceSettings::Manifests(manifests),
            name: "agent-0".to_owned(),
            node: None,
            cluster: Some("home".to_owned()),
            authority: AuthoritySource::Directory(directory.path().to_owned()),
            listen: Some(page),
            drain: Duration::ZERO,
            leader_election: false,
            host_targets: true,
        };
        std::fs::write(directory.path().join(AUTHORITY_FILE), authorities.to_pem())?;
        let agent = tokio::spawn(async move {
            let _ended = agent::run(settings, std::future::pending()).await;
        });
        let key = key.to_owned();
        Ok(Self { authorities, backend, key, acceptor, page, directory, agent })
    }

    /// Replaces the authority that the agent reads.
    pub(crate) fn authorize(&self, authorities: &Authorities) -> anyhow::Result<()> {
        let draft = self.directory.path().join("draft");
        std::fs::write(&draft, authorities.to_pem())?;
        Ok(std::fs::rename(&draft, self.directory.path().join(AUTHORITY_FILE))?)
    }

    /// The agent's next session, once it has said whom to trust and that it serves the backend.
    pub(crate) async fn session(&mut self) -> GatewaySession {
        let arrived = soon("a session", self.acceptor.next()).await;
        let Some(Arrival::Session(mut session)) = arrived else { panic!("{arrived:?}") };
        let greeting = async {
            let (mut trusts, mut serves) = (false, false);
            while !(trusts && serves) {
                match session.control.receive().await {
                    Some(ToGateway::Certificate(_)) => trusts = true,
                    Some(ToGateway::Serving(it)) => {
                        serves |= it.iter().any(|it| it.backend == self.key);
                    }
                    Some(_) => {}
                    None => panic!("it ended: {:?}", session.control.status().ended()),
                }
            }
        };
        soon("an agent that serves something", greeting).await;
        *session
    }

    /// Asks for a flow to the backend, for a visitor or to probe.
    pub(crate) fn ask(&self, probe: bool) -> Open {
        Open {
            backend: self.key.clone(),
            protocol: Protocol::Tcp,
            visitor: ([198, 51, 100, 7], 40001).into(),
            dialled: ([192, 0, 2, 1], 443).into(),
            server_name: None,
            probe,
        }
    }

    /// What the agent tells about itself.
    pub(crate) async fn status(&self) -> anyhow::Result<serde_json::Value> {
        let mut stream = TcpStream::connect(self.page).await?;
        stream.write_all(b"GET /status HTTP/1.0\r\nHost: agent\r\n\r\n").await?;
        let mut answer = String::new();
        soon("the page", stream.read_to_string(&mut answer)).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        Ok(serde_json::from_str(body)?)
    }
}

fn manifest(dialled: u16, target: u16, annotation: &str) -> String {
    format!(
        "apiVersion: portcullis.dev/v1alpha1
kind: EdgeGateway
metadata: {{ name: fra1 }}
spec: {{ endpoints: [{{ host: 127.0.0.1, port: {dialled} }}], carrier: tls }}
---
apiVersion: v1
kind: Service
metadata:
  namespace: web
  name: blog
  annotations:
    portcullis.dev/gateway: fra1
    portcullis.dev/target: host
    {annotation}
spec: {{ ports: [{{ port: 443, targetPort: {target} }}] }}
"
    )
}

/// A gateway that has its certificate already.
async fn adopted(authorities: &Authorities, directory: &Path) -> anyhow::Result<Arc<GatewayTrust>> {
    let now = SystemTime::now();
    let agent = AgentTrust::new(LocalSigner::new(authorities.clone()), "agent-9").await?;
    let cluster = ClusterTrust {
        cluster: "home".to_owned(),
        gateway: "fra1".to_owned(),
        pins: authorities.pins(now),
        offer: None,
    };
    let state = StateDirectory::open(directory.join("state"))?;
    let gateway = GatewayTrust::open(state, vec![cluster])?;
    let request = gateway.request("home")?;
    let certificate = agent.certify(&gateway.identity("home")?, request).await?;
    gateway.install("home", &certificate, now)?;
    Ok(gateway)
}

/// A connection's two ends.
pub(crate) async fn connected_pair() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let one = TcpStream::connect(listener.local_addr()?).await?;
    Ok((one, listener.accept().await?.0))
}

/// Carries bytes between a visitor and a flow.
pub(crate) fn relay(flow: Box<dyn Flow>, plain: TcpStream) -> JoinHandle<Ending> {
    tokio::spawn(flow.relay(plain, Bytes::new(), Arc::default()))
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
