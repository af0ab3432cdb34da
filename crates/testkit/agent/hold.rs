//! The agent's main loop: namespaces first, then one thread for each question.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::net::if_::InterfaceFlags;
use nix::sys::signal::{SigSet, Signal};

use crate::client::{self, Flow, Prober};
use crate::message::{Ask, Reply, Request, Told};
use crate::namespace::{self, Owner};
use crate::server::Server;
use crate::sweep;

/// Something that a request opened and a later one closes.
enum Open {
    Server { _closed_on_drop: Server },
    Flow(Arc<Mutex<Flow>>),
    Prober(Arc<Prober>),
}

#[derive(Clone, Default)]
struct Shared {
    open: Arc<Mutex<BTreeMap<u64, Open>>>,
    output: Arc<Mutex<()>>,
}

/// `hold HOST-NAME own-else-new|own|new|PID`: keeps new namespaces until standard input ends.
pub(crate) fn run(args: &[OsString]) -> Result<(), String> {
    let [host_name, owner] = args else {
        return Err("hold: expected a host name and the owner of the namespaces".into());
    };
    let owner = match owner.to_str() {
        Some("own-else-new") => Owner::OwnElseNew,
        Some("own") => Owner::Own,
        Some("new") => Owner::New,
        Some(pid) => Owner::Joined(pid.parse().map_err(|_| format!("`{pid}` is not a pid"))?),
        None => return Err("hold: the owner is not text".into()),
    };
    // Before there are threads, so that all of them leave these signals to `wait` below. An agent
    // that is not detached ends with its standard input, and only then: an interrupt at the
    // terminal must not take the clean-up away.
    end_signals().thread_block().map_err(|it| format!("block signals: {it}"))?;
    let shared = Shared::default();
    let ready = namespace::create(owner, &host_name.to_string_lossy());
    let failed = ready.is_err();
    shared.reply(0, ready.map(|user| Told::Ready { user }));
    if failed {
        return Ok(());
    }

    let mut detached = false;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Request { id, ask } =
            serde_json::from_str(&line).map_err(|it| format!("`{line}`: {it}"))?;
        if matches!(ask, Ask::Detach) {
            detached = true;
            shared.reply(id, Ok(Told::Done));
            continue;
        }
        let shared = shared.clone();
        std::thread::spawn(move || shared.reply(id, shared.answer(id, ask)));
    }
    if detached {
        end_signals().wait().map_err(|it| format!("wait for a signal: {it}"))?;
    }
    sweep::end_all_others();
    // Not a return: threads that still serve end here, and with them the namespaces.
    std::process::exit(0)
}

fn end_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn reply(&self, id: u64, result: Result<Told, String>) {
        let mut line = match serde_json::to_vec(&Reply { id, result }) {
            Ok(line) => line,
            Err(error) => format!("{{\"id\":{id},\"result\":{{\"Err\":\"{error}\"}}}}").into(),
        };
        line.push(b'\n');
        let _one_at_a_time = lock(&self.output);
        // When nobody reads any more, the end of standard input tells it too.
        let _ = std::io::stdout().write_all(&line);
        let _ = std::io::stdout().flush();
    }

    fn answer(&self, id: u64, ask: Ask) -> Result<Told, String> {
        match ask {
            Ask::Sysctl { key, value } => {
                let file = setting(&key)?;
                std::fs::write(&file, value).map_err(|it| format!("write {file}: {it}"))?;
                Ok(Told::Done)
            }
            Ask::ReadSysctl { key } => {
                let file = setting(&key)?;
                let value = std::fs::read_to_string(&file);
                value
                    .map(|it| Told::Text(it.trim().to_owned()))
                    .map_err(|it| format!("read {file}: {it}"))
            }
            Ask::WaitForCarrier { interface, deadline } => {
                let begin = Instant::now();
                while !is_running(&interface)? {
                    if begin.elapsed() > deadline {
                        return Err(format!("`{interface}` has no carrier after {deadline:?}"));
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
                Ok(Told::Done)
            }
            Ask::Serve { name, at, protocol } => {
                let server = Server::open(&name, at, protocol)
                    .map_err(|it| format!("serve `{name}` on {at}/{protocol}: {it}"))?;
                let bound: SocketAddr = server.address();
                lock(&self.open).insert(id, Open::Server { _closed_on_drop: server });
                Ok(Told::Bound(bound))
            }
            Ask::Probe(probe) => client::probe(&probe).map(Told::Outcome),
            Ask::Burst { probe, count } => {
                let (mut answers, mut failed) = (Vec::new(), Vec::new());
                for _ in 0..count {
                    let outcome = client::probe(&probe)?;
                    match outcome.answer() {
                        Some(answer) => answers.push(answer.clone()),
                        None => failed.push(outcome),
                    }
                }
                Ok(Told::Burst { answers, failed })
            }
            Ask::OpenFlow(probe) => match Flow::open(&probe)? {
                (Some(flow), outcome) => {
                    lock(&self.open).insert(id, Open::Flow(Arc::new(Mutex::new(flow))));
                    Ok(Told::Outcome(outcome))
                }
                (None, outcome) => Ok(Told::Outcome(outcome)),
            },
            Ask::QueryFlow { flow, deadline } => {
                let flow = match lock(&self.open).get(&flow) {
                    Some(Open::Flow(it)) => it.clone(),
                    Some(Open::Server { .. } | Open::Prober(_)) | None => {
                        return Err(format!("no flow {flow} is open"));
                    }
                };
                let outcome = lock(&flow).ask(deadline);
                outcome.map(Told::Outcome)
            }
            Ask::StartProber { probe, every } => {
                if every < Duration::from_micros(100) {
                    return Err("a prober needs at least 100 microseconds between probes".into());
                }
                let prober = Prober::start(probe, every);
                lock(&self.open).insert(id, Open::Prober(prober));
                Ok(Told::Done)
            }
            Ask::ReadProber { prober } => {
                let prober = self.prober(prober)?;
                prober.take().map(Told::Attempts)
            }
            Ask::StopProber { prober: id } => {
                let prober = self.prober(id)?;
                lock(&self.open).remove(&id);
                prober.stop();
                prober.take().map(Told::Attempts)
            }
            Ask::Close { handle } => {
                let closed = lock(&self.open).remove(&handle);
                drop(closed);
                Ok(Told::Done)
            }
            Ask::Detach => Ok(Told::Done),
        }
    }

    fn prober(&self, id: u64) -> Result<Arc<Prober>, String> {
        match lock(&self.open).get(&id) {
            Some(Open::Prober(it)) => Ok(it.clone()),
            Some(Open::Server { .. } | Open::Flow(_)) | None => {
                Err(format!("no prober {id} is running"))
            }
        }
    }
}

fn is_running(interface: &str) -> Result<bool, String> {
    let all = nix::ifaddrs::getifaddrs().map_err(|it| format!("list interfaces: {it}"))?;
    let mut named = all.filter(|it| it.interface_name == interface);
    Ok(named.any(|it| it.flags.contains(InterfaceFlags::IFF_RUNNING)))
}

/// The file of a kernel setting. Only settings of the network namespace are reachable: all
/// others belong to the whole machine.
fn setting(key: &str) -> Result<String, String> {
    if key.is_empty() || key.starts_with('/') || key.split('/').any(|it| it == "..") {
        return Err(format!("`{key}` is not a path below /proc/sys/net"));
    }
    Ok(format!("/proc/sys/net/{key}"))
}
