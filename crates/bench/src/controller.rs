//! A running controller, seen from outside: its pages, its processor time, its memory.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testkit::Machine;
use testkit::lab::Daemon;

/// The port of its pages, on the loopback interface of its machine.
const PORT: u16 = 9180;

/// How long it may take to bring its hosts to the desired state.
const READY: Duration = Duration::from_secs(120);

/// A running `portcullis controller`. Dropping it kills it.
pub(crate) struct Controller {
    machine: Machine,
    daemon: Daemon,
}

/// How often a host followed a change, and how long that took in all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lags {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

impl Controller {
    /// Starts the controller in a machine and waits until it is ready.
    pub(crate) fn start(machine: &Machine, program: &Path, arguments: &[&str]) -> Result<Self> {
        let listen = format!("127.0.0.1:{PORT}");
        let mut all = vec!["controller", "--listen", &listen];
        all.extend(arguments);
        let daemon = machine.spawn(program, &all)?;
        let controller = Self { machine: machine.clone(), daemon };
        let ready = |it: &Daemon| {
            let _ = it;
            controller.page("/readyz").ok().filter(|page| page.ends_with("ok\n"))
        };
        controller.daemon.wait_until("/readyz says ok", READY, ready)?;
        Ok(controller)
    }

    /// One of its pages, headers included.
    pub(crate) fn page(&self, path: &str) -> Result<String> {
        self.machine.enter(|| page(path))?
    }

    /// The body of `/status`.
    pub(crate) fn status(&self) -> Result<serde_json::Value> {
        let page = self.page("/status")?;
        let (_, body) = page.split_once("\r\n\r\n").context("/status has no body")?;
        serde_json::from_str(body).context("/status is no JSON")
    }

    /// How long the host lagged behind its objects so far.
    pub(crate) fn lags(&self, host: &str) -> Result<Lags> {
        let page = self.page("/metrics")?;
        let value = |name: &str| {
            let name = format!("portcullis_lag_seconds_{name}{{host=\"{host}\"}} ");
            let text = page.lines().find_map(|it| it.strip_prefix(&name));
            text.map_or(Ok(0.0), str::parse::<f64>).context("/metrics has no number")
        };
        Ok(Lags { count: value("count")? as u64, seconds: value("sum")? })
    }

    /// Makes one change and returns how long the host lagged behind it: from the moment at which the
    /// controller learned of the change to the kernel's answer.
    pub(crate) fn lag_of(
        &self,
        host: &str,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<Duration> {
        let before = self.lags(host)?;
        change()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.lags(host)?;
            if now.count > before.count {
                let changes = now.count - before.count;
                anyhow::ensure!(changes == 1, "{changes} passes for one change");
                return Ok(Duration::from_secs_f64(now.seconds - before.seconds));
            }
            self.daemon.check_alive()?;
            anyhow::ensure!(Instant::now() < deadline, "no pass within 20 s of a change");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processor time so far, its ended children included.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid()))?;
        // The second field, the name, may hold anything; then user, system, and both of children.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let ticks = fields.split_whitespace().skip(11).take(4).map(str::parse::<u64>);
        let ticks = ticks.sum::<Result<u64, _>>()?;
        let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no ticks")?;
        Ok(Duration::from_secs_f64(ticks as f64 / second as f64))
    }

    /// The share of one core that it uses while `during` passes, in per cent.
    pub(crate) fn processor_share(&self, during: Duration) -> Result<f64> {
        let (before, begin) = (self.processor_time()?, Instant::now());
        std::thread::sleep(during);
        let used = self.processor_time()?.saturating_sub(before);
        self.daemon.check_alive()?;
        Ok(100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64())
    }

    /// Resident memory now and at its highest, in megabytes (10^6 bytes).
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.pid()))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|it| it.strip_prefix(name)).context("VmRSS")?;
            let kibibytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
            Ok(kibibytes * 1024.0 / 1e6)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Waits until it has nothing more to do: it leads, and for a while nothing was read and nothing
    /// reported. What leads writes conditions into every Service once, and a lease that a killed
    /// predecessor holds is only free after 15 seconds.
    pub(crate) fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.status()?["leader"] != true {
            anyhow::ensure!(Instant::now() < deadline, "the controller does not become the leader");
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut quiet = 0;
        while quiet < 2 {
            anyhow::ensure!(Instant::now() < deadline, "the controller does not come to rest");
            let share = self.processor_share(Duration::from_secs(1))?;
            quiet = if share <= 2.0 { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// Everything that it logged.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // For whoever asks where the time went; with PORTCULLIS_LOG=debug in the environment.
        let file = std::env::current_exe().map(|it| it.with_file_name("bench-controller.log"));
        let _nobody_asks = file.and_then(|it| std::fs::write(it, self.log()));
    }
}

fn page(path: &str) -> Result<String> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
