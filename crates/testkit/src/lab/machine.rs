//! One machine of a lab.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::agent::{self, Agent};
use super::{Daemon, Shared};
use crate::message::{Ask, Told};
use crate::requirement::{self, Missing};

/// One machine of a lab. Clones are the same machine.
#[derive(Clone)]
pub struct Machine(Shared<Inner>);

struct Inner {
    name: String,
    agent: Agent,
}

/// What a program left behind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// How a machine treats packets whose source it would not answer over the same interface
/// (`rp_filter`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReversePath {
    /// Takes them.
    Off,
    /// Drops them.
    Strict,
    /// Drops them only when it has no route to their source at all.
    Loose,
}

/// How long a program may run under [`Machine::run`].
const RUN_DEADLINE: Duration = Duration::from_secs(60);

impl Machine {
    pub(super) fn new(name: &str, agent: Agent) -> Self {
        Self(Shared::new(Inner { name: name.to_owned(), agent }))
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.0.agent
    }

    pub(super) fn initialise(&self) -> anyhow::Result<()> {
        self.ip_batch("link set lo up\n")?;
        // A new namespace inherits some of these from the host that the test runs on.
        self.forwarding(false)?;
        for which in ["all", "default", "lo"] {
            self.sysctl(&format!("ipv4/conf/{which}/rp_filter"), "0")?;
            for key in ["accept_dad", "accept_ra", "router_solicitations"] {
                let _no_ipv6 = self.sysctl(&format!("ipv6/conf/{which}/{key}"), "0");
            }
        }
        Ok(())
    }

    /// The machine's name, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The process that keeps the machine's namespaces. It lives as long as the lab.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.agent().pid
    }

    /// The file of the network namespace, for programs that take one.
    #[must_use]
    pub fn net_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid()))
    }

    /// The command with which a person looks around in the machine.
    #[must_use]
    pub fn enter_by_hand(&self) -> String {
        let user = if self.agent().user { "--user --preserve-credentials " } else { "" };
        format!("nsenter --target {} {user}--net --mount --uts", self.pid())
    }

    /// A command that starts `program` inside the machine, for callers that want to set its
    /// environment, its standard streams, or an async runtime's way of waiting for it.
    ///
    /// The program keeps the caller's working directory and environment; `PATH` has the
    /// directories of system programs as well. Whatever still runs when the lab is dropped is
    /// killed.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(agent::agent_program());
        command
            .arg("enter")
            .arg(self.pid().to_string())
            .arg(if self.agent().user { "user" } else { "plain" })
            .arg(program)
            .env("PATH", requirement::search_path());
        command
    }

    /// Runs a program to its end, and succeeds when the program does.
    ///
    /// # Errors
    ///
    /// When it cannot be started, does not end within a minute (it is then killed), or exits
    /// with a status other than zero; the message has its standard error.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        self.run_with_input(program, args, "")
    }

    /// Like [`Self::run`], with text for the program's standard input.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn run_with_input(
        &self,
        program: &str,
        args: &[&str],
        input: &str,
    ) -> anyhow::Result<String> {
        let output = self.output(program, args, input)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        bail!(
            "on {}: {program} {}: {}: {}\n(look around: {})",
            self.name(),
            args.join(" "),
            output.status,
            output.stderr.trim(),
            self.enter_by_hand()
        )
    }

    /// Runs a program to its end and returns how it ended, whether well or not.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not end within a minute (it is then killed).
    pub fn output(&self, program: &str, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let context = || format!("on {}: {program} {}", self.name(), args.join(" "));
        let mut child = self
            .command(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(context)?;
        let mut stdin = child.stdin.take().with_context(context)?;
        let stdout = child.stdout.take().with_context(context)?;
        let stderr = child.stderr.take().with_context(context)?;
        let (stdout, stderr) = (Collected::start(stdout), Collected::start(stderr));
        let pid = i32::try_from(child.id()).map(Pid::from_raw).with_context(context)?;
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A program need not read what it is given.
                let _closed = stdin.write_all(input.as_bytes());
            });
            let (ended, end) = sync_channel(1);
            scope.spawn(move || ended.send(child.wait()));
            end.recv_timeout(RUN_DEADLINE).map_err(|_| {
                let _just_ended = kill(pid, Signal::SIGKILL);
                anyhow!("not ended within {RUN_DEADLINE:?}")
            })
        });
        let status = status.with_context(context)?.with_context(context)?;
        Ok(Output { status, stdout: stdout.text(), stderr: stderr.text() })
    }

    /// Starts a program that goes on running. It is killed when the returned value is dropped.
    ///
    /// # Errors
    ///
    /// When it cannot be started. That it ended early is noticed by [`Daemon`]'s methods.
    pub fn spawn(&self, program: impl AsRef<OsStr>, args: &[&str]) -> anyhow::Result<Daemon> {
        let mut command = self.command(&program);
        command.args(args);
        Daemon::start(format!("{} on {}", program.as_ref().display(), self.name()), command)
    }

    /// Runs `f` on a thread of this process that is inside the machine's network namespace.
    ///
    /// Sockets that it opens and programs that it starts belong to the machine; threads that it
    /// starts inherit the namespace, so an async runtime built inside `f` lives there as a whole.
    ///
    /// # Errors
    ///
    /// Where the lab needs a user namespace, which a process with threads cannot enter.
    ///
    /// # Panics
    ///
    /// When `f` does.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, Missing> {
        let missing = |reason: String| {
            Missing::new(
                format!("enter `{}` within this process: {reason}", self.name()),
                "run as root",
            )
        };
        if self.agent().user {
            return Err(missing("its lab is in a user namespace".into()));
        }
        let namespace = File::open(self.net_path()).map_err(|it| missing(it.to_string()))?;
        let name = std::thread::current().name().map(str::to_owned);
        let mut builder = std::thread::Builder::new();
        if let Some(name) = name {
            builder = builder.name(name);
        }
        std::thread::scope(|scope| {
            let inside = builder.spawn_scoped(scope, move || {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                Ok::<_, nix::Error>(f())
            });
            match inside.map_err(|it| missing(it.to_string()))?.join() {
                Ok(result) => result.map_err(|it| missing(it.to_string())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Lets the machine forward packets between its interfaces, IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the setting.
    pub fn forwarding(&self, on: bool) -> anyhow::Result<()> {
        let value = if on { "1" } else { "0" };
        self.sysctl("ipv4/ip_forward", value)?;
        let _no_ipv6 = self.sysctl("ipv6/conf/default/forwarding", value);
        let _no_ipv6 = self.sysctl("ipv6/conf/all/forwarding", value);
        Ok(())
    }

    /// Sets the reverse path filter of all interfaces, those that come later too.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the setting.
    pub fn reverse_path(&self, filter: ReversePath) -> anyhow::Result<()> {
        let value = match filter {
            ReversePath::Off => "0",
            ReversePath::Strict => "1",
            ReversePath::Loose => "2",
        };
        // The stricter of `all` and the interface's own counts.
        self.sysctl("ipv4/conf/default/rp_filter", value)?;
        self.sysctl("ipv4/conf/all/rp_filter", value)?;
        for interface in self.interfaces()? {
            self.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), value)?;
        }
        Ok(())
    }

    /// Sets a kernel setting of the machine's network, written as a path below `/proc/sys/net`:
    /// `ipv4/ip_forward`. Settings outside of it belong to the whole host and cannot be reached.
    ///
    /// # Errors
    ///
    /// When there is no such setting or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let ask = Ask::Sysctl { key: key.to_owned(), value: value.to_owned() };
        self.agent().ask(ask).map(|_| ()).with_context(|| format!("on {}", self.name()))
    }

    /// Reads such a setting.
    ///
    /// # Errors
    ///
    /// When there is no such setting.
    pub fn read_sysctl(&self, key: &str) -> anyhow::Result<String> {
        match self.agent().ask(Ask::ReadSysctl { key: key.to_owned() })? {
            (_, Told::Text(value)) => Ok(value),
            (_, other) => bail!("the agent told {other:?}"),
        }
    }

    /// The names of the machine's interfaces, without the loopback interface.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn interfaces(&self) -> anyhow::Result<Vec<String>> {
        let links: Vec<serde_json::Value> =
            serde_json::from_str(&self.run("ip", &["-json", "link", "show"])?)?;
        let names = links.iter().filter_map(|it| it.get("ifname")?.as_str());
        Ok(names.filter(|it| *it != "lo").map(str::to_owned).collect())
    }

    /// Adds a route, or replaces the one there is: `route("default", "10.0.0.1")`,
    /// `route("fd00:2::/64", "fd00:1::1")`.
    ///
    /// # Errors
    ///
    /// When `via` is not an address, and what `ip` said.
    pub fn route(&self, to: &str, via: &str) -> anyhow::Result<()> {
        let family = family(via)?;
        self.run("ip", &[family, "route", "replace", to, "via", via]).map(|_| ())
    }

    /// Adds an address with prefix length to an interface.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn add_address(&self, interface: &str, address: &str) -> anyhow::Result<()> {
        self.ip_batch(&address_line("add", interface, address))
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn remove_address(&self, interface: &str, address: &str) -> anyhow::Result<()> {
        self.run("ip", &["address", "del", address, "dev", interface]).map(|_| ())
    }

    /// Switches an interface on or off. Off is like a pulled cable for the other end too. The
    /// kernel forgets the IPv6 addresses of an interface that is switched off.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn set_up(&self, interface: &str, up: bool) -> anyhow::Result<()> {
        let state = if up { "up" } else { "down" };
        self.run("ip", &["link", "set", interface, state]).map(|_| ())
    }

    /// Adds a bridge with these addresses over these interfaces of the machine.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn bridge(
        &self,
        bridge: &str,
        addresses: &[&str],
        interfaces: &[&str],
    ) -> anyhow::Result<()> {
        let mut lines = format!("link add {bridge} type bridge\n");
        for interface in interfaces {
            lines += &format!("link set {interface} master {bridge} up\n");
        }
        self.ip_batch(&(lines + &up_with_addresses(bridge, addresses)))
    }

    /// Loads an nft script, as one transaction.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn nft(&self, script: &str) -> anyhow::Result<()> {
        self.run_with_input("nft", &["-f", "-"], script).map(|_| ())
    }

    /// Drops every packet from or to `address` in silence, as a dead wire would, until the
    /// returned value is dropped. Needs `nft`.
    ///
    /// # Errors
    ///
    /// What `nft` said.
    pub fn black_hole(&self, address: IpAddr) -> anyhow::Result<BlackHole> {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let hole = BlackHole {
            machine: self.clone(),
            table: format!("black-hole-{:08x}", rand::random::<u32>()),
        };
        // Before connection tracking and every other table.
        self.nft(&format!(
            "table inet {table} {{\n\
             chain input {{ type filter hook prerouting priority -500; {family} saddr {address} drop; }}\n\
             chain output {{ type filter hook postrouting priority 500; {family} daddr {address} drop; }}\n\
             }}\n",
            table = hole.table,
        ))?;
        Ok(hole)
    }

    pub(super) fn ip_batch(&self, lines: &str) -> anyhow::Result<()> {
        self.run_with_input("ip", &["-batch", "-"], lines).map(|_| ())
    }
}

/// What a program wrote to one of its streams. Read on a thread of its own: a program that left a
/// child in the background has ended, although that child still has the stream.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Collected {
    fn start(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (ended, end) = sync_channel(1);
        std::thread::spawn({
            let bytes = Arc::clone(&bytes);
            move || {
                let mut part = [0; 65536];
                while let Ok(length @ 1..) = stream.read(&mut part) {
                    let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                    bytes.extend_from_slice(&part[..length]);
                }
                let _nobody_waits = ended.send(());
            }
        });
        Self { bytes, end }
    }

    /// What there is after the program has ended.
    fn text(self) -> String {
        // Everything is in the pipe already; only a child in the background keeps it open.
        let _still_open = self.end.recv_timeout(Duration::from_millis(500));
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Packets that vanish, until this is dropped. See [`Machine::black_hole`].
#[derive(Debug)]
pub struct BlackHole {
    machine: Machine,
    table: String,
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        // When the machine is gone, so is the table.
        let _gone = self.machine.run("nft", &["delete", "table", "inet", &self.table]);
    }
}

/// A line for `ip -batch` that makes a cable from an interface of the machine where it runs to
/// one of `other`.
///
/// All interfaces get different index numbers. The kernel tells a veth from an ordinary device by
/// its peer having another number; if both have the same, as the first interfaces of two new
/// machines would, it lets up to a second pass before it takes notice of the carrier (rate limit
/// of `linkwatch`), and all packets of that second are lost.
pub(super) fn veth(interface: &str, other_interface: &str, other: &Machine) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    let index = NEXT.fetch_add(2, Ordering::Relaxed);
    format!(
        "link add {interface} index {index} type veth peer name {other_interface} index {} netns {}\n",
        index + 1,
        other.pid()
    )
}

/// Lines for `ip -batch` that add addresses to an interface and switch it on.
pub(super) fn up_with_addresses(interface: &str, addresses: &[&str]) -> String {
    let addresses: String = addresses.iter().map(|it| address_line("add", interface, it)).collect();
    format!("{addresses}link set {interface} up\n")
}

fn address_line(verb: &str, interface: &str, address: &str) -> String {
    // Duplicate address detection would keep the address unusable for a second.
    let nodad = if address.contains(':') { " nodad" } else { "" };
    format!("address {verb} {address} dev {interface}{nodad}\n")
}

fn family(address: &str) -> anyhow::Result<&'static str> {
    let parsed = address.parse::<IpAddr>();
    ensure!(parsed.is_ok(), "`{address}` is not an address");
    Ok(if address.contains(':') { "-6" } else { "-4" })
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.0.name).field("pid", &self.pid()).finish()
    }
}
