//! `cluster up|down|status`: a real two-node Kubernetes to play with, which stays after the command.
//!
//! A keeper process holds the cluster as a test would. `up` starts the keeper and waits until the
//! cluster is ready; `down` asks it to end and waits until nothing is left. Their only meeting
//! point is a directory in the user's cache, so there is one such cluster per user.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use testkit::kubernetes::{Cluster, ClusterOptions};
use testkit::wait::until_ok;

const UP_LIMIT: Duration = Duration::from_secs(180);
const DOWN_LIMIT: Duration = Duration::from_secs(30);
const USAGE: &str = "usage: cluster up|down|status";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let meeting = match MeetingPoint::find() {
        Ok(meeting) => meeting,
        Err(error) => return failure(&error),
    };
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["up"] => up(&meeting),
        ["down"] => down(&meeting),
        ["status"] => status(&meeting),
        ["keep"] => keep(&meeting),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| failure(&error))
}

fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("cluster: {error:#}");
    ExitCode::FAILURE
}

fn up(meeting: &MeetingPoint) -> anyhow::Result<ExitCode> {
    if meeting.keeper()?.is_some() {
        println!("The cluster is already up.\n{}", meeting.description()?);
        return Ok(ExitCode::SUCCESS);
    }
    Cluster::available()?;
    meeting.clear()?;
    let begin = Instant::now();
    let log = File::create(meeting.path("log")).context("cannot write the keeper's log")?;
    // A session of its own: neither Ctrl-C nor the end of the terminal ends the cluster.
    let mut keeper = Command::new("setsid")
        .arg(std::env::current_exe().context("cannot find this program")?)
        .arg("keep")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log between two streams")?)
        .stderr(log)
        .spawn()
        .context("cannot start the keeper")?;
    println!("Starting etcd, the control plane and two nodes ...");
    until_ok("the cluster to be up", UP_LIMIT, || {
        if let Some(status) = keeper.try_wait().context("cannot ask for the keeper's state")? {
            let log = std::fs::read_to_string(meeting.path("log")).unwrap_or_default();
            bail!("the cluster did not start ({status}):\n{log}");
        }
        Ok(meeting.path("ready").exists().then_some(()))
    })?;
    println!("Up after {:.1} s.\n{}", begin.elapsed().as_secs_f32(), meeting.description()?);
    Ok(ExitCode::SUCCESS)
}

fn down(meeting: &MeetingPoint) -> anyhow::Result<ExitCode> {
    let Some(pid) = meeting.keeper()? else {
        println!("The cluster is not up.");
        return Ok(ExitCode::SUCCESS);
    };
    let begin = Instant::now();
    kill(pid, Signal::SIGTERM).context("cannot signal the keeper")?;
    until_ok("the cluster to be gone", DOWN_LIMIT, || {
        Ok(meeting.keeper()?.is_none().then_some(()))
    })?;
    let traces = std::fs::read_to_string(meeting.path("traces")).unwrap_or_default();
    let left: Vec<_> = traces.lines().filter(|it| Path::new(it).exists()).collect();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    meeting.clear()?;
    println!("Down after {:.1} s; nothing is left.", begin.elapsed().as_secs_f32());
    Ok(ExitCode::SUCCESS)
}

fn status(meeting: &MeetingPoint) -> anyhow::Result<ExitCode> {
    if meeting.keeper()?.is_none() {
        println!("The cluster is not up; `make cluster` starts it.");
        return Ok(ExitCode::FAILURE);
    }
    if !meeting.path("ready").exists() {
        println!("The cluster is starting.");
        return Ok(ExitCode::FAILURE);
    }
    println!("The cluster is up.\n{}", meeting.description()?);
    Ok(ExitCode::SUCCESS)
}

/// The keeper itself: holds the cluster until it is asked to end.
fn keep(meeting: &MeetingPoint) -> anyhow::Result<ExitCode> {
    // Before any thread exists, so that each of them has it: the signal then waits to be taken.
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.thread_block().context("cannot hold back signals")?;

    let lock = meeting.lock()?;
    let cluster = Cluster::start(ClusterOptions::default())?;
    meeting.write("description", &describe(&cluster))?;
    let traces: Vec<_> = cluster.traces().iter().map(|it| format!("{}\n", it.display())).collect();
    meeting.write("traces", &traces.concat())?;
    meeting.write("ready", "")?;
    ends.wait().context("cannot wait for a signal")?;
    drop(cluster);
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

fn describe(cluster: &Cluster) -> String {
    let control_plane = cluster.control_plane();
    let kubeconfig = control_plane.admin().kubeconfig().display();
    let kubectl = control_plane.kubectl().map(|it| PathBuf::from(it.get_program()));
    let kubectl = kubectl.unwrap_or_else(|_| "kubectl".into());
    let mut text = format!(
        "
  export KUBECONFIG={kubeconfig}
  alias kubectl={kubectl}

Try:
  kubectl get nodes -o wide
  kubectl create deployment echo --image={image} --replicas=2
  kubectl create service nodeport echo --tcp=8080 --node-port=30080
",
        kubectl = kubectl.display(),
        image = testkit::kubernetes::ECHO_IMAGE,
    );
    let pid = cluster.underlay().holder().pid();
    for node in cluster.nodes() {
        text += &format!(
            "  nsenter --net=/proc/{pid}/ns/net curl -s http://{}:30080/\n",
            node.address()
        );
    }
    for node in cluster.nodes() {
        let pid = node.holder().pid();
        text += &format!("  nsenter -t {pid} -n -m -p -C bash      # a shell on {}\n", node.name());
    }
    text += &format!(
        "\nLogs: {}\nTake it down: make cluster-down\n",
        control_plane.directory().display()
    );
    text
}

/// The directory where the commands and the keeper find each other.
struct MeetingPoint(PathBuf);

impl MeetingPoint {
    fn find() -> anyhow::Result<Self> {
        let own = std::env::var_os("PORTCULLIS_CACHE").map(PathBuf::from);
        let cache = own.or_else(|| {
            std::env::var_os("XDG_CACHE_HOME").map(|it| PathBuf::from(it).join("portcullis"))
        });
        let cache = cache.or_else(|| {
            std::env::var_os("HOME").map(|it| PathBuf::from(it).join(".cache/portcullis"))
        });
        let directory = cache
            .context("neither PORTCULLIS_CACHE, XDG_CACHE_HOME nor HOME is set")?
            .join("cluster");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.path(name), text)
            .with_context(|| format!("cannot write {}", self.path(name).display()))
    }

    fn description(&self) -> anyhow::Result<String> {
        until_ok("the cluster to be ready", UP_LIMIT, || {
            ensure!(
                self.keeper()?.is_some(),
                "the cluster ended while it started; see {}",
                self.path("log").display()
            );
            let ready = self.path("ready").exists();
            Ok(ready.then(|| std::fs::read_to_string(self.path("description")).ok()).flatten())
        })
    }

    /// Forgets an earlier cluster.
    fn clear(&self) -> anyhow::Result<()> {
        for name in ["ready", "description", "traces", "log"] {
            match std::fs::remove_file(self.path(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", self.path(name).display()));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes the keeper's lock, with the keeper's process id in it, until the returned file is closed.
    fn lock(&self) -> anyhow::Result<File> {
        let mut file =
            File::options().create(true).write(true).truncate(false).open(self.path("keeper"));
        let file =
            file.as_mut().map_err(|it| anyhow::anyhow!("cannot open the keeper's lock: {it}"))?;
        file.try_lock().context("another cluster is up")?;
        file.set_len(0).context("cannot write the keeper's lock")?;
        std::io::Write::write_all(file, std::process::id().to_string().as_bytes())
            .context("cannot write the keeper's lock")?;
        file.try_clone().context("cannot keep the keeper's lock")
    }

    /// The running keeper, if there is one. A process id alone proves nothing: whoever holds the lock is the keeper.
    fn keeper(&self) -> anyhow::Result<Option<Pid>> {
        let file = match File::open(self.path("keeper")) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("cannot open the keeper's lock"),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(error).context("cannot read the keeper's lock")
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                let text = std::fs::read_to_string(self.path("keeper"))
                    .context("cannot read the keeper's lock")?;
                // Empty for the moment between the lock and the writing.
                Ok(text.parse().ok().map(Pid::from_raw))
            }
        }
    }
}
