//! The record layer against the TLS library's own, which knows nothing of it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tunnel_proto::frame::Kind;
use tunnel_proto::message::Certificate;

use super::connection::{Connection, Established};
use super::handshake::Handshake;
use crate::peer::ServerHandshakes;
use crate::trust::{
    AgentTrust, Authorities, ClusterTrust, GatewayTrust, Issued, LocalSigner, Pin, Role,
    Signer as _, StateDirectory, alpn,
};

const MEBIBYTE: usize = 1 << 20;

#[tokio::test]
async fn a_client_understands_the_library() {
    let stage = Stage::new().await;
    for chunk in [1, 100, 16_384, 16_385, 300_000] {
        let (ours, theirs) = pair().await;
        let server = tokio::spawn(stage.library_server(theirs));
        let mut connection = stage.our_client(ours).await.connection;
        let mut server = server.await.expect("no panic").expect("a handshake");
        exchange(&mut connection, &mut server, chunk).await;
    }
}

#[tokio::test]
async fn a_server_understands_the_library() {
    let stage = Stage::new().await;
    let (ours, theirs) = pair().await;
    let client = stage.library_client(theirs);
    let (mut connection, client) = tokio::join!(stage.our_server(ours), client);
    exchange(&mut connection, &mut client.expect("a handshake"), 50_000).await;
}

#[tokio::test]
async fn keys_are_renewed_in_both_directions() {
    let stage = Stage::new().await;
    let (ours, theirs) = pair().await;
    let server = tokio::spawn(stage.library_server(theirs));
    let mut connection = stage.our_client(ours).await.connection;
    let mut server = server.await.expect("no panic").expect("a handshake");
    for _ in 0..3 {
        // The library asks for new keys of ours as well.
        server.get_mut().1.refresh_traffic_keys().expect("the handshake is over");
        exchange(&mut connection, &mut server, 5_000).await;
        connection.wear_out_keys();
        exchange(&mut connection, &mut server, 5_000).await;
    }
}

#[tokio::test]
async fn a_ticket_spares_the_second_handshake_its_certificates() {
    let stage = Stage::new().await;
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let (ours, theirs) = pair().await;
        let server = tokio::spawn(stage.library_server(theirs));
        let mut connection = stage.our_client(ours).await.connection;
        let mut server = server.await.expect("no panic").expect("a handshake");
        // The ticket comes with the first bytes.
        exchange(&mut connection, &mut server, 10).await;
        sizes.push(server.get_ref().1.handshake_kind());
    }
    use rustls::HandshakeKind::{Full, Resumed};
    assert_eq!(sizes, [Some(Full), Some(Resumed)]);
}

#[tokio::test]
async fn an_orderly_end_differs_from_a_broken_one() {
    let stage = Stage::new().await;
    for orderly in [true, false] {
        let (ours, theirs) = pair().await;
        let server = tokio::spawn(stage.library_server(theirs));
        let mut connection = stage.our_client(ours).await.connection;
        let mut server = server.await.expect("no panic").expect("a handshake");
        server.write_all(b"last").await.expect("it is open");
        server.flush().await.expect("it is open");
        if orderly {
            server.shutdown().await.expect("it is open");
        } else {
            server.get_mut().0.shutdown().await.expect("it is open");
        }
        let mut all = Vec::new();
        let end = connection.read_to_end(&mut all).await.map_err(|it| it.kind());
        assert_eq!(all, b"last");
        let expected = if orderly { Ok(4) } else { Err(io::ErrorKind::UnexpectedEof) };
        assert_eq!(end, expected);
    }
}

#[tokio::test]
async fn what_somebody_changed_on_the_way_is_refused() {
    let stage = Stage::new().await;
    for position in [0, 3, 5, 20] {
        let (ours, theirs) = pair().await;
        let (between, other) = pair().await;
        let server = tokio::spawn(stage.library_server(other));
        let meddler = tokio::spawn(meddle(theirs, between, position));
        let mut connection = stage.our_client(ours).await.connection;
        let mut server = server.await.expect("no panic").expect("a handshake");
        exchange(&mut connection, &mut server, 100).await;
        server.write_all(b"CHANGE").await.expect("it is open");
        server.flush().await.expect("it is open");
        let read = tokio::time::timeout(Duration::from_secs(5), connection.read_u8()).await;
        match read {
            Ok(read) => {
                let kind = read.expect_err("nobody can change a record").kind();
                let refused = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
                assert!(refused.contains(&kind), "byte {position}: {kind:?}");
            }
            // A length that was changed: the end of the record never comes.
            Err(_) => assert_eq!(position, 3),
        }
        meddler.abort();
    }
}

#[tokio::test]
async fn frames_of_every_kind_pass() {
    let stage = Stage::new().await;
    let (ours, theirs) = pair().await;
    let (server, client) = tokio::join!(stage.our_server(theirs), stage.our_client(ours));
    let (mut server, mut client) = (server, client.connection);
    for (kind, length) in
        [(Kind::Open, 500), (Kind::Datagram, 65_507), (Kind::Datagram, 0), (Kind::Ping, 0)]
    {
        let payload = vec![9; length];
        client.send(kind, &payload).expect("it is open");
        let (sent, came) = tokio::join!(client.flush(), server.next_frame());
        sent.expect("it is open");
        assert_eq!(came.expect("it is open"), (kind, payload));
        assert!(server.is_at_rest());
    }
}

/// Bytes there and back in writes of `chunk`, over a mebibyte.
async fn exchange(
    ours: &mut Connection,
    theirs: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    chunk: usize,
) {
    let total = (chunk * 20).min(MEBIBYTE);
    let sent: Vec<u8> = (0..total).map(|it| (it * 7 + (it >> 9)) as u8).collect();
    let mut came = vec![0; total];
    let forth = async {
        for part in sent.chunks(chunk) {
            ours.write_all(part).await?;
        }
        ours.flush().await
    };
    let arrive = async { theirs.read_exact(&mut came).await.map(|_| ()) };
    let (near, far) = tokio::join!(forth, arrive);
    near.expect("it is open");
    far.expect("it is open");
    assert!(came == sent, "there, in chunks of {chunk}");
    came.fill(0);
    let back = async {
        for part in sent.chunks(chunk) {
            theirs.write_all(part).await?;
        }
        theirs.flush().await
    };
    let arrive = async { ours.read_exact(&mut came).await.map(|_| ()) };
    let (near, far) = tokio::join!(back, arrive);
    near.expect("it is open");
    far.expect("it is open");
    assert!(came == sent, "back, in chunks of {chunk}");
}

/// Passes bytes on; in what the server sends after a pause, changes one.
async fn meddle(mut client: TcpStream, mut server: TcpStream, position: usize) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => if server.write_all(&up[..length]).await.is_err() { return },
            },
            read = server.read(&mut down) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    // Six bytes make a record of 28; nothing else here is as long.
                    if length == 28 {
                        down[position] ^= 1;
                    }
                    if client.write_all(&down[..length]).await.is_err() { return }
                }
            },
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let ends = (dialled.expect("it listens"), accepted.expect("it dials").0);
    for end in [&ends.0, &ends.1] {
        end.set_nodelay(true).expect("a TCP socket");
    }
    ends
}

fn certificate(issued: &Issued) -> Certificate {
    Certificate {
        certificate: issued.certificate.to_vec(),
        authorities: issued.authorities.iter().map(|it| it.to_vec().into()).collect(),
    }
}

struct Stage {
    agent: Arc<AgentTrust>,
    gateway: Arc<dyn ServerHandshakes>,
    _directory: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
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
        let identity =
            crate::peer::Identity::new("home", Role::Gateway, "fra1").expect("an identity");
        let issued = signer.sign(request, identity, agent.lifetime()).await.expect("it signs");
        let certificate = certificate(&issued);
        gateway.install("home", &certificate, SystemTime::now()).expect("it fits");
        let gateway = gateway.handshakes().expect("a configuration");
        Self { agent, gateway, _directory: directory }
    }

    fn name(&self) -> ServerName<'static> {
        self.agent.handshakes("fra1").expect("a configuration").server_name()
    }

    async fn our_client(&self, stream: TcpStream) -> Established {
        let config = self.agent.handshakes("fra1").expect("a configuration").config();
        let handshake =
            Handshake::client(&config, self.name(), alpn::FLOW).expect("a configuration");
        Connection::establish(stream, handshake, Vec::new()).await.expect("a handshake")
    }

    async fn our_server(&self, stream: TcpStream) -> Connection {
        let handshake =
            Handshake::server(&self.gateway.config(), &[alpn::FLOW]).expect("a configuration");
        let established = Connection::establish(stream, handshake, Vec::new()).await;
        established.expect("a handshake").connection
    }

    fn library_server(
        &self,
        stream: TcpStream,
    ) -> impl Future<Output = io::Result<tokio_rustls::server::TlsStream<TcpStream>>> + use<> {
        TlsAcceptor::from(self.gateway.config()).accept(stream)
    }

    fn library_client(
        &self,
        stream: TcpStream,
    ) -> impl Future<Output = io::Result<tokio_rustls::client::TlsStream<TcpStream>>> + use<> {
        let config = self.agent.handshakes("fra1").expect("a configuration").config();
        let mut config = (*config).clone();
        config.alpn_protocols = vec![alpn::FLOW.to_vec()];
        TlsConnector::from(Arc::new(config)).connect(self.name(), stream)
    }
}
