//! A real OpenSSH server in a machine of a lab, with an account that exists only there.
//!
//! The machine gets an `/etc` of its own, so the account, its password entry and its sudoers
//! lines are seen by nobody outside, and go with the machine. Keys and configuration lie in the
//! machine's private `/run` and are reached from outside through `/proc`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Daemon, Machine};
use crate::requirement::{self, Missing};

/// Whether an SSH server can run here.
///
/// # Errors
///
/// Names what is missing. sshd changes to the user who logs in, so it needs to be root, and a
/// lab that is not in a user namespace.
pub fn available() -> Result<(), Missing> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Missing::new("sshd cannot change users", "run as root"));
    }
    requirement::program("sshd", "openssh-server")?;
    requirement::program("ssh", "openssh-client")?;
    requirement::program("useradd", "passwd")?;
    requirement::program("sudo", "sudo")?;
    Ok(())
}

/// What the server should be like.
#[derive(Clone, Debug)]
pub struct Options {
    machine: Machine,
    address: SocketAddr,
    user: String,
    shell: String,
    key_options: String,
    sudoers: String,
    configuration: String,
}

impl Options {
    /// A server on port 22 of an address of `machine`, with the account `portcullis`, which may
    /// run everything that an ordinary user may.
    #[must_use]
    pub fn new(machine: &Machine, address: IpAddr) -> Self {
        Self {
            machine: machine.clone(),
            address: SocketAddr::new(address, 22),
            user: "portcullis".into(),
            shell: "/bin/sh".into(),
            key_options: String::new(),
            sudoers: String::new(),
            configuration: String::new(),
        }
    }

    /// Another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// Another name for the account.
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.user = name.into();
        self
    }

    /// Another login shell than `/bin/sh`.
    #[must_use]
    pub fn shell(mut self, path: &str) -> Self {
        self.shell = path.into();
        self
    }

    /// Options of the key, as they stand before it in `authorized_keys`:
    /// `restrict,command="/usr/bin/portcullis host-apply"`.
    #[must_use]
    pub fn key_options(mut self, options: &str) -> Self {
        self.key_options = options.into();
        self
    }

    /// The text of a file in `/etc/sudoers.d`, checked by `visudo`.
    #[must_use]
    pub fn sudoers(mut self, text: &str) -> Self {
        self.sudoers = text.into();
        self
    }

    /// Lines for `sshd_config`. The first value of a keyword counts, and these come first.
    #[must_use]
    pub fn configuration(mut self, lines: &str) -> Self {
        self.configuration = lines.into();
        self
    }

    /// Makes the account and the keys, starts the server and waits until it listens.
    ///
    /// # Errors
    ///
    /// When a part of that does not work. Ask [`available`] first.
    pub fn start(self) -> anyhow::Result<SshServer> {
        SshServer::start(self)
    }
}

/// A running SSH server. Dropping it ends it with all its sessions; the account goes with the
/// machine.
#[derive(Debug)]
pub struct SshServer {
    options: Options,
    directory: PathBuf,
    host_key: String,
    daemon: Mutex<Option<Daemon>>,
    /// The logs of the servers before the last restart.
    earlier: Mutex<String>,
}

impl SshServer {
    fn start(options: Options) -> anyhow::Result<Self> {
        let machine = &options.machine;
        machine.own_etc()?;
        let directory = PathBuf::from(format!("/run/ssh-server-{}", options.address.port()));
        let home = directory.join("home");
        let inside = |name: &str| directory.join(name).display().to_string();
        machine.run("mkdir", &["-p", &home.display().to_string()])?;
        if machine.run("id", &["-u", &options.user]).is_err() {
            let home = home.display().to_string();
            // `*`: no password, but not locked either, which sshd would refuse.
            let account = ["-M", "-d", &home, "-s", &options.shell, "-p", "*", &options.user];
            machine.run("useradd", &account)?;
        }
        machine.run("chown", &[&options.user, &home.display().to_string()])?;
        for name in ["host_key", "user_key"] {
            let key = ["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &inside(name)];
            machine.run("ssh-keygen", &key)?;
        }
        let user_key = machine.read_file(&directory.join("user_key.pub"))?;
        let key_options = match options.key_options.as_str() {
            "" => String::new(),
            text => format!("{text} "),
        };
        machine.write_file(
            &directory.join("authorized_keys"),
            &format!("{key_options}{user_key}"),
            0o644,
        )?;
        if !options.sudoers.is_empty() {
            let file = PathBuf::from("/etc/sudoers.d").join(&options.user);
            machine.write_file(&file, &format!("{}\n", options.sudoers.trim_end()), 0o440)?;
            machine.run("visudo", &["-c"]).context("the sudoers lines")?;
        }
        let host_key = machine.read_file(&directory.join("host_key.pub"))?;
        // `ssh-ed25519 KEY`, without the comment.
        let host_key = host_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        machine.write_file(
            &directory.join("sshd_config"),
            &configuration(&options, &directory),
            0o644,
        )?;
        let address = options.address;
        let known = format!("[{}]:{} {host_key}\n", address.ip(), address.port());
        let plain = format!("{} {host_key}\n", address.ip());
        machine.write_file(&directory.join("known_hosts"), &(known + &plain), 0o644)?;
        let server = Self {
            options,
            directory,
            host_key,
            daemon: Mutex::new(None),
            earlier: Mutex::default(),
        };
        server.restart()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.options.address
    }

    /// The account.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.options.user
    }

    /// The file of the account's private key, readable from everywhere on this host.
    #[must_use]
    pub fn private_key(&self) -> PathBuf {
        self.file("user_key")
    }

    /// The server's public key as it stands in a `known_hosts` file: `ssh-ed25519 AAAA...`.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// A `known_hosts` file with that key, readable from everywhere on this host.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.file("known_hosts")
    }

    /// The OpenSSH client, started in a machine and pointed at this server; the command to run
    /// there is for the caller to add.
    pub fn client(&self, from: &Machine) -> Command {
        let mut command = from.command("ssh");
        command
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
            .args(["-o", "StrictHostKeyChecking=yes", "-o"])
            .arg(format!("UserKnownHostsFile={}", self.known_hosts().display()))
            .arg("-i")
            .arg(self.private_key())
            .args(["-p", &self.address().port().to_string()])
            .arg(format!("{}@{}", self.user(), self.address().ip()));
        command
    }

    /// Everything that the server has logged, over all restarts.
    #[must_use]
    pub fn log(&self) -> String {
        let now = lock(&self.daemon).as_ref().map(Daemon::log).unwrap_or_default();
        lock(&self.earlier).clone() + &now
    }

    /// Ends the server and all its sessions with SIGKILL, as a crash of the machine would. Clients
    /// are told by the kernel, which closes the connections; for a silent death use
    /// [`Machine::black_hole`].
    pub fn kill(&self) {
        let daemon = lock(&self.daemon).take();
        if let Some(daemon) = daemon {
            daemon.kill();
            lock(&self.earlier).push_str(&daemon.log());
        }
        self.kill_sessions();
    }

    /// Ends all sessions; the server goes on listening.
    pub fn kill_sessions(&self) {
        let listener = lock(&self.daemon).as_ref().map(Daemon::pid);
        for pid in self.processes() {
            if Some(pid) != listener
                && let Ok(pid) = i32::try_from(pid)
            {
                let _already_ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }

    /// Ends the server if it runs, starts it again on the same port with the same keys, and waits
    /// until it listens.
    ///
    /// # Errors
    ///
    /// When it does not come up; the message shows its log.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.kill();
        let program = requirement::program("sshd", "openssh-server")?;
        let mut command = self.options.machine.command(&program);
        // As an init system would start it: nothing of the test's environment leaks into
        // sessions.
        command.env_clear().arg("-D").arg("-e").arg("-f").arg(self.directory.join("sshd_config"));
        let name = format!("sshd on {}", self.options.machine.name());
        let daemon = Daemon::start(name, command)?;
        daemon.wait_for_log("Server listening on", Duration::from_secs(20))?;
        *lock(&self.daemon) = Some(daemon);
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.options.machine.path(&self.directory.join(name))
    }

    /// The server's processes: those of its program in its machine, and those of the account.
    fn processes(&self) -> Vec<u32> {
        let Ok(namespace) = std::fs::read_link(self.options.machine.net_path()) else {
            return Vec::new();
        };
        let uid = self.options.machine.run("id", &["-u", &self.options.user]);
        let uid = uid.ok().and_then(|it| it.trim().parse::<u32>().ok());
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| {
            let directory = PathBuf::from(format!("/proc/{pid}"));
            let here = std::fs::read_link(directory.join("ns/net")).is_ok_and(|it| it == namespace);
            let name = std::fs::read_to_string(directory.join("comm")).unwrap_or_default();
            let owner = std::fs::metadata(&directory).ok();
            let owner = owner.map(|it| std::os::unix::fs::MetadataExt::uid(&it));
            here && (name.trim() == "sshd" || (uid.is_some() && owner == uid))
        })
        .collect()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Machine {
    /// The path under which a file of this machine is reached from outside of it. Only as root.
    #[must_use]
    pub fn path(&self, inside: &Path) -> PathBuf {
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        PathBuf::from(format!("/proc/{}/root", self.pid())).join(relative)
    }

    /// Gives the machine a copy of `/etc` that it may change without anyone else seeing it, and
    /// in which it can resolve its own name. Does nothing when it has one already.
    ///
    /// # Errors
    ///
    /// When it cannot be copied or mounted.
    pub fn own_etc(&self) -> anyhow::Result<()> {
        if self.run("mountpoint", &["-q", "/etc"]).is_ok() {
            return Ok(());
        }
        self.run("mkdir", &["/run/etc"])?;
        self.run("mount", &["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run/etc"])?;
        self.run("cp", &["-a", "/etc/.", "/run/etc"])?;
        // A file of its own even where the host has a mount or a link.
        let hosts = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {}\n", self.name());
        self.write_file(Path::new("/run/etc/hosts"), &hosts, 0o644)?;
        self.run("mount", &["--move", "/run/etc", "/etc"])?;
        Ok(())
    }

    fn read_file(&self, inside: &Path) -> anyhow::Result<String> {
        self.run("cat", &[&inside.display().to_string()])
    }

    fn write_file(&self, inside: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
        let file = inside.display().to_string();
        ensure!(file.starts_with('/'), "`{file}` is not an absolute path");
        self.run_with_input("tee", &[&file], text)?;
        self.run("chmod", &[&format!("{mode:o}"), &file])?;
        Ok(())
    }
}

fn configuration(options: &Options, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "{own}\n\
         Port {port}\n\
         ListenAddress {address}\n\
         HostKey {directory}/host_key\n\
         AuthorizedKeysFile {directory}/authorized_keys\n\
         PidFile none\n\
         UsePAM no\n\
         StrictModes no\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin no\n\
         AllowUsers {user}\n\
         LogLevel VERBOSE\n\
         Subsystem sftp internal-sftp\n",
        own = options.configuration,
        port = options.address.port(),
        address = options.address.ip(),
        user = options.user,
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
