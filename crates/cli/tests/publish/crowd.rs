//! As many agents as a gateway may ever meet at once.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use testkit::internet::public;
use tokio::task::JoinSet;
use tunnel::dialler::{self, DiallerSettings, Endpoint};
use tunnel::quic;
use tunnel::session::AgentSession;
use tunnel::trust::{AgentTrust, Authorities, LocalSigner};

use crate::objects::Service;
use crate::place::{ONE, Place, at, finish, none_failed_or_slow};

/// How many agents.
const AGENTS: usize = 1000;

/// What they may cost the gateway at its worst moment, in bytes.
const MEMORY: u64 = 256 << 20;

/// How long all of them may take until they are connected.
const LIMIT: Duration = Duration::from_secs(90);

/// One of the crowd, with a certificate of the cluster's authority.
struct Agent {
    settings: DiallerSettings,
    quic: bool,
}

#[test]
#[ignore = "does not hold yet: a debug build lets visitors wait behind a thousand handshakes"]
fn wb04_a_thousand_agents_that_come_back_at_once_keep_no_visitor_waiting() -> anyhow::Result<()> {
    let Some(place) = Place::build("crowd", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let crowd = agents(&place)?;
    let prober = place.prober(at(1, 443))?;
    // Behind one router all of them have one address.
    let machine = place.internet.public("crowd", 10)?;
    let connected = Arc::new(AtomicUsize::new(0));
    let held = machine.enter(|| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let mut all = JoinSet::new();
        for agent in crowd {
            all.spawn_on(come_back(agent, Arc::clone(&connected)), runtime.handle());
        }
        let sessions = async { tokio::time::timeout(LIMIT, all.join_all()).await.ok() };
        runtime.block_on(sessions).map(|it| it.len())
    })?;
    held.with_context(|| {
        let count = connected.load(Ordering::Relaxed);
        format!("{count} of {AGENTS} were connected in {LIMIT:?}\n{}", place.logs())
    })?;
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    let most = place.with_gateway(1, |it| peak_memory(it.pid()))?;
    assert!(most < MEMORY, "{most} bytes for {AGENTS} agents");
    Ok(())
}

/// Agents with certificates, so that nothing is left to do but to dial. Every fiftieth uses QUIC: each
/// of those has a socket with large buffers, and all of them are in this one process.
fn agents(place: &Place) -> anyhow::Result<Vec<Agent>> {
    let file = place.path("authority/authority.pem");
    let text = std::fs::read_to_string(&file)?;
    let signer = LocalSigner::new(Authorities::from_pem(&file.display().to_string(), &text)?);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let endpoint = Endpoint { host: Ipv4Addr::to_string(&public(1)), port: 7443 };
    let agent = |number: usize| {
        let name = format!("crowd-{number}");
        let trust = runtime.block_on(AgentTrust::new(Arc::clone(&signer) as _, &name))?;
        let handshakes = trust.handshakes("g1")?;
        let mut settings = DiallerSettings::new(vec![endpoint.clone()], handshakes, &name);
        // Agents have processors of their own, these share one; and they expect no visitors.
        settings.patience = LIMIT;
        settings.most_flows = 0;
        Ok(Agent { settings, quic: number % 50 == 49 })
    };
    (0..AGENTS).map(agent).collect()
}

/// Dials until there is a session, as agents do: after a failure with a pause that is longer each
/// time, and random.
async fn come_back(agent: Agent, connected: Arc<AtomicUsize>) -> AgentSession {
    let mut longest = Duration::from_millis(100);
    for epoch in 1.. {
        let dialled = if agent.quic {
            quic::dial(&agent.settings, epoch).await
        } else {
            dialler::dial(&agent.settings, epoch).await
        };
        if let Ok(session) = dialled {
            connected.fetch_add(1, Ordering::Relaxed);
            return session;
        }
        tokio::time::sleep(longest.mul_f64(rand::random())).await;
        longest = (2 * longest).min(Duration::from_secs(10));
    }
    unreachable!("epochs do not end")
}

/// The most memory that a process ever had resident, in bytes.
fn peak_memory(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
