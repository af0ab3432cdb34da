//! The lab, and what is easily said about it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use gateway::Gateway;
use gateway::config::{ClusterConfig, Config, Sha256};
use jiff::Timestamp;
use testkit::probe::{Outcome, Probe};
use testkit::{Lab, Machine, Protocol};
use tokio::runtime::Runtime;
use tunnel::trust::{Authorities, LocalSigner, OneTimeSecret, system_clock};
use tunnel_proto::message;

use crate::agent::Agent;

/// Longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The public machine, the home, and the visitor's machine.
pub(crate) struct Place {
    // Dropped first: sockets close before machines go.
    home_runtime: Runtime,
    signer: Arc<LocalSigner>,
    secret: OneTimeSecret,
    _state: tempfile::TempDir,
    pub(crate) config: Config,
    pub(crate) gateway: Machine,
    pub(crate) home: Machine,
    pub(crate) visitor: Machine,
    _lab: Lab,
}

/// A gateway that runs in the public machine, with a runtime of its own as a process would have.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    ended: std::sync::mpsc::Receiver<()>,
}

enum Order {
    Configure(Box<Config>),
    End,
}

impl Place {
    /// `None` where the machine that tests run on cannot have one, which has been said.
    pub(crate) fn new(name: &str) -> anyhow::Result<Option<Self>> {
        if let Ok(filter) = std::env::var("TEST_LOG") {
            let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
            // Another test of this process may have begun before.
            let _begun = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        }
        let Some(lab) = testkit::require(Lab::as_root(name)) else { return Ok(None) };
        let (gateway, home, visitor) =
            (lab.machine("gateway")?, lab.machine("home")?, lab.machine("visitor")?);
        lab.link(
            &gateway,
            "public",
            &["203.0.113.1/24", "203.0.113.2/24", "2001:db8::1/64"],
            &visitor,
            "eth0",
            &["203.0.113.9/24", "203.0.113.10/24", "2001:db8::9/64"],
        )?;
        lab.link(&gateway, "uplink", &["10.2.0.1/24"], &home, "eth0", &["10.2.0.2/24"])?;
        let authorities = Authorities::create("home", system_clock())?;
        let pin = authorities.pins(system_clock()).first().context("an authority")?.to_string();
        let signer = LocalSigner::new(authorities);
        let secret = OneTimeSecret::generate()?;
        let state = tempfile::tempdir()?;
        let config = config(&pin, &secret, &state)?;
        let home_runtime = runtime(&home)?;
        let place = Self {
            home_runtime,
            signer,
            secret,
            _state: state,
            config,
            gateway,
            home,
            visitor,
            _lab: lab,
        };
        Ok(Some(place))
    }

    /// Starts a gateway.
    pub(crate) fn start(&self) -> anyhow::Result<Running> {
        self.start_with(self.config.clone())
    }

    /// Starts a gateway with another configuration.
    pub(crate) fn start_with(&self, config: Config) -> anyhow::Result<Running> {
        start_on(runtime(&self.gateway)?, config)
    }

    /// Starts a gateway that may not change the kernel's rules.
    pub(crate) fn start_without_kernel(&self, config: Config) -> anyhow::Result<Running> {
        let runtime = self.gateway.enter(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            // For the programs that it starts: even root does not get it back then.
            builder.on_thread_start(|| {
                let dropped = rustix::thread::remove_capability_from_bounding_set(
                    rustix::thread::CapabilitySet::NET_ADMIN,
                );
                assert!(dropped.is_ok(), "{dropped:?}");
            });
            builder.worker_threads(2).enable_all().build()
        })??;
        start_on(runtime, config)
    }
    /// Starts an agent that has adopted the gateway, if need be, and wishes these ports.
    pub(crate) fn agent(&self, name: &str) -> anyhow::Result<Agent> {
        let (signer, secret, name) =
            (self.signer.clone(), self.secret.bytes().to_vec(), name.to_owned());
        let agent = on(&self.home_runtime, async move {
            Agent::start(signer, &secret, &name, SocketAddr::from(([10, 2, 0, 1], 7443))).await
        })?;
        agent.context("start an agent")
    }

    /// What becomes of a visitor.
    pub(crate) fn visit(&self, to: &str, protocol: Protocol) -> anyhow::Result<Outcome> {
        self.visitor.probe(Probe::new(to.parse()?, protocol))
    }

    /// Waits until a visitor is answered by this server.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        to: &str,
        protocol: Protocol,
        server: &str,
    ) -> anyhow::Result<()> {
        let mut last = None;
        let answered =
            testkit::wait::until_ok(&format!("{server} answers at {to}"), DEADLINE, || {
                let outcome = self.visit(to, protocol)?;
                let found = outcome.server() == Some(server);
                last = Some(outcome);
                Ok(found.then_some(()))
            });
        answered.with_context(|| format!("at last: {last:?}"))
    }
}

impl Running {
    /// Ends it in order, as SIGTERM does.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        self.begin_to_end();
        self.wait()
    }

    /// Begins to end it, as SIGTERM does.
    pub(crate) fn begin_to_end(&self) {
        let _ended = self.orders.send(Order::End);
    }

    /// Gives it another configuration, as SIGHUP does.
    pub(crate) fn configure(&self, config: Config) {
        let _ended = self.orders.send(Order::Configure(Box::new(config)));
    }

    /// Waits until it has ended: another one took over.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        self.ended.recv_timeout(Duration::from_secs(60)).context("the gateway has not ended")
    }
}

impl Drop for Running {
    /// As a power cut would.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn start_on(runtime: Runtime, config: Config) -> anyhow::Result<Running> {
    let (orders, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (has_ended, ended) = std::sync::mpsc::channel();
    let gateway = on(&runtime, async move { Gateway::start(config, "test").await })??;
    runtime.spawn(async move {
        let mut gateway = gateway;
        loop {
            tokio::select! {
                () = gateway.until_taken_over() => break,
                order = told.recv() => match order {
                    Some(Order::Configure(config)) => gateway.configure(*config),
                    Some(Order::End) | None => {
                        gateway.drain().await;
                        break;
                    }
                }
            }
        }
        let _nobody_waits = has_ended.send(());
    });
    Ok(Running { runtime: Some(runtime), orders, ended })
}

/// A runtime whose threads are in the machine.
pub(crate) fn runtime(machine: &Machine) -> anyhow::Result<Runtime> {
    let build = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build()
    };
    Ok(machine.enter(build)??)
}

/// Runs a future on the runtime's own threads: this one is in another machine.
pub(crate) fn on<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let _nobody_waits = sender.send(future.await);
    });
    receiver.recv_timeout(Duration::from_secs(60)).map_err(|_| anyhow!("no answer, or a panic"))
}

fn config(pin: &str, secret: &OneTimeSecret, state: &tempfile::TempDir) -> anyhow::Result<Config> {
    let text = format!(
        "name = \"fra1\"\nstateDirectory = {:?}\nmetrics = \"127.0.0.1:9464\"\ndrainSeconds = 5",
        state.path()
    );
    let mut config = Config::parse(std::path::Path::new("gateway.toml"), &text)?;
    let text = format!("name = \"home\"\ncaPin = \"{pin}\"");
    let mut cluster: ClusterConfig = toml::from_str(&text)?;
    cluster.secret_hash =
        Some(secret.hash().to_string().parse::<Sha256>().map_err(anyhow::Error::msg)?);
    cluster.expires = Some(Timestamp::now() + jiff::SignedDuration::from_mins(10));
    config.clusters.push(cluster);
    Ok(config)
}

/// A TCP port for everyone that leads to a backend.
pub(crate) fn port(port: u16, backend: &str) -> message::PublishedPort {
    message::PublishedPort {
        address: None,
        port,
        protocol: message::Protocol::Tcp,
        owner: format!("Service web/{backend}"),
        route: message::Route::Backend(backend.to_owned()),
        allow_from: Vec::new(),
        limits: message::Limits::default(),
        idle_seconds: 0,
    }
}

/// The same over UDP.
pub(crate) fn udp_port(number: u16, backend: &str) -> message::PublishedPort {
    message::PublishedPort { protocol: message::Protocol::Udp, ..port(number, backend) }
}

impl Place {
    /// A server at home that returns what it gets.
    pub(crate) fn echo(&self) -> anyhow::Result<SocketAddr> {
        let address = on(&self.home_runtime, async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let (mut read, mut write) = stream.split();
                        let _gone = tokio::io::copy(&mut read, &mut write).await;
                    });
                }
            });
            Ok::<_, std::io::Error>(address)
        });
        Ok(address??)
    }

    /// A page of the gateway, with its header.
    pub(crate) fn page(&self, path: &str) -> anyhow::Result<String> {
        use std::io::{Read as _, Write as _};
        self.gateway.enter(|| {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:9464")?;
            stream.set_read_timeout(Some(DEADLINE))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        })?
    }

    /// Sends bytes to an echo while it reads what comes back; returns how many came.
    pub(crate) fn exchange(&self, to: &str, bytes: &[u8]) -> anyhow::Result<usize> {
        use std::io::{Read as _, Write as _};
        let to: SocketAddr = to.parse()?;
        self.visitor.enter(|| {
            let mut stream = std::net::TcpStream::connect(to)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            let mut reading = stream.try_clone()?;
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let written = stream.write_all(bytes);
                    written.and_then(|()| stream.shutdown(std::net::Shutdown::Write))
                });
                let mut came = Vec::new();
                reading.read_to_end(&mut came)?;
                Ok(came.len())
            })
        })?
    }

    /// Says something from the visitor's machine, and returns the first `expect` bytes of the
    /// answer.
    pub(crate) fn say(&self, to: &str, bytes: &[u8], expect: usize) -> anyhow::Result<Vec<u8>> {
        use std::io::{Read as _, Write as _};
        let to: SocketAddr = to.parse()?;
        self.visitor.enter(|| {
            let mut stream = std::net::TcpStream::connect(to)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.write_all(bytes)?;
            let mut answer = vec![0; expect];
            stream.read_exact(&mut answer)?;
            Ok(answer)
        })?
    }
}
