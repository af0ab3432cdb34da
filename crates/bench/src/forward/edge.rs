//! A client, a host and the machines that play the nodes.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use testkit::probe::EchoServer;
use testkit::{Lab, Machine, Protocol};

use crate::objects::{NODE_PORT, node_address};

/// The host's address towards the client.
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_micros(500);

/// A client, a host that routes, and one machine with the addresses of all nodes.
pub(crate) struct Edge {
    pub(crate) host: Machine,
    pub(crate) client: Machine,
    _server: EchoServer,
    _nodes: Machine,
    _lab: Lab,
}

impl Edge {
    /// Builds them, with so many nodes that accept connections.
    pub(crate) fn build(nodes: usize) -> Result<Self> {
        let lab = Lab::as_root("bench")?;
        let (host, client) = (lab.machine("edge")?, lab.machine("client")?);
        lab.link(&client, "eth0", &["198.51.100.9/24"], &host, "eth0", &["198.51.100.1/24"])?;
        client.route("default", "198.51.100.1")?;
        host.forwarding(true)?;
        let machine = lab.machine("nodes")?;
        let addresses: Vec<_> = (1..=nodes).map(|it| node_address(it) + "/24").collect();
        let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
        lab.link(&host, "nodes0", &["10.77.0.1/24"], &machine, "eth0", &addresses)?;
        machine.route("default", "10.77.0.1")?;
        let server = machine.serve(
            "nodes",
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, NODE_PORT)),
            Protocol::Tcp,
        )?;
        Ok(Self { host, client, _server: server, _nodes: machine, _lab: lab })
    }

    /// Connects to a host port from the client, again and again, until that works (or, with
    /// `refused`, until it does not); meanwhile `cause` runs once. Returns the time from just before
    /// `cause` to the end of the deciding attempt.
    pub(crate) fn until_connected(
        &self,
        port: u16,
        refused: bool,
        cause: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let to = SocketAddr::from((HOST, port));
        let deadline = Duration::from_secs(30);
        std::thread::scope(|scope| {
            let (ready, start) = std::sync::mpsc::sync_channel(1);
            let prober = scope.spawn(move || {
                self.client.enter(|| {
                    let begin = Instant::now();
                    let mut attempts = 0_u32;
                    while begin.elapsed() < deadline {
                        let connected = TcpStream::connect_timeout(&to, Duration::from_secs(1));
                        if connected.is_ok() != refused {
                            return Some(Instant::now());
                        }
                        attempts += 1;
                        if attempts == 10 {
                            // The prober is at its pace; whoever waits for it may be gone.
                            let _ = ready.send(());
                        }
                        std::thread::sleep(PAUSE);
                    }
                    None
                })
            });
            // Fails when the prober had its wish before the cause.
            let started = start.recv();
            let begin = Instant::now();
            if started.is_ok() {
                cause()?;
            }
            let end = prober.join().map_err(|_| anyhow::anyhow!("the prober panicked"))??;
            anyhow::ensure!(
                started.is_ok(),
                "port {port} was in the wanted state before the cause"
            );
            let end = end.ok_or_else(|| anyhow::anyhow!("nothing within {deadline:?}"))?;
            Ok(end.saturating_duration_since(begin))
        })
    }
}
