//! Two machines: one that we are on, and a host with a real sshd and its accounts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Process;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use command::{Command, Output, Program};
use host::{ClientKey, ExecuteError, Executor, HostKey, Mode, Ssh, SshHost, Timing};
use testkit::lab::Daemon;
use testkit::requirement::{Missing, program};
use testkit::{Lab, Machine};

use super::local::write_program;

/// Where the host is.
pub(crate) const ADDRESS: &str = "10.9.0.2";

/// Accounts of the host: name, sudoers line, forced command.
const ACCOUNTS: [(&str, &str, bool); 5] = [
    // Bound to the forced command, which sudo starts as root.
    ("apply", "apply ALL=(root) NOPASSWD: APPLY", true),
    // May run what the nftables backend needs.
    ("nftables", "nftables ALL=(root) NOPASSWD: /usr/sbin/nft", false),
    // What the predecessor's documentation grants, and the program that we add to it.
    (
        "epok",
        "epok ALL=(root) NOPASSWD: /usr/sbin/iptables, /usr/sbin/iptables-save, \
         /usr/sbin/iptables-restore",
        false,
    ),
    // May log in and nothing else.
    ("nobody-special", "", false),
    // Logs in with a key that is bound to nothing of ours.
    ("stranger", "", false),
];

pub(crate) struct Site {
    // Daemons and namespaces go before the files that they use.
    sshd: Mutex<Option<Daemon>>,
    pub(crate) host: Machine,
    client: Machine,
    _lab: Lab,
    dir: tempfile::TempDir,
}

impl Site {
    /// Builds the site and starts sshd; `None` after a loud skip.
    #[track_caller]
    pub(crate) fn new(name: &str) -> Option<Self> {
        testkit::require(Self::needs().and_then(|()| Lab::as_root(name)))
            .map(|lab| Self::build(lab).expect("the site is built"))
    }

    fn needs() -> Result<(), Missing> {
        for (name, package) in [
            ("sshd", "openssh-server"),
            ("ssh-keygen", "openssh-client"),
            ("sudo", "sudo"),
            ("nft", "nftables"),
        ] {
            program(name, package)?;
        }
        Ok(())
    }

    fn build(lab: Lab) -> anyhow::Result<Self> {
        let client = lab.machine("client")?;
        let host = lab.machine("host")?;
        lab.link(&client, "eth0", &["10.9.0.1/24"], &host, "eth0", &["10.9.0.2/24"])?;
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let site = Self { sshd: Mutex::new(None), host, client, _lab: lab, dir };
        for key in ["host", "other-host", "client", "other-client"] {
            site.make_key(key)?;
        }
        site.make_accounts()?;
        site.start_sshd()?;
        Ok(site)
    }

    fn make_key(&self, name: &str) -> anyhow::Result<()> {
        let made = Process::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(self.path(name))
            .status()?;
        anyhow::ensure!(made.success(), "ssh-keygen: {made}");
        Ok(())
    }

    /// Accounts exist on this host alone: their files are bound over the system's.
    fn make_accounts(&self) -> anyhow::Result<()> {
        let apply = self.path("host-apply");
        write_program(
            Path::new(&apply),
            &format!("exec {} serve /run/portcullis", env!("CARGO_BIN_EXE_host-apply-under-test")),
        );
        let mut passwd = fs::read_to_string("/etc/passwd")?;
        let mut shadow = fs::read_to_string("/etc/shadow")?;
        fs::create_dir(self.path("keys"))?;
        fs::create_dir(self.path("sudoers.d"))?;
        let public = fs::read_to_string(self.path("client.pub"))?;
        for (number, (user, sudoers, forced)) in ACCOUNTS.iter().enumerate() {
            let id = 4000 + number;
            passwd.push_str(&format!("{user}:x:{id}:{id}::/nonexistent:/bin/sh\n"));
            shadow.push_str(&format!("{user}:*:19000:0:99999:7:::\n"));
            let file = self.path(&format!("sudoers.d/{user}"));
            fs::write(&file, format!("{}\n", sudoers.replace("APPLY", &apply)))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o440))?;
            let options = match *forced {
                true => format!("restrict,command=\"sudo -n {apply}\" "),
                false => "restrict ".to_owned(),
            };
            fs::write(self.path(&format!("keys/{user}")), format!("{options}{public}"))?;
        }
        fs::write(self.path("passwd"), passwd)?;
        fs::write(self.path("shadow"), shadow)?;
        fs::write(self.path("hosts"), "127.0.0.1 localhost host\n")?;
        for name in ["passwd", "shadow", "hosts", "sudoers.d"] {
            self.host.run("mount", &["--bind", &self.path(name), &format!("/etc/{name}")])?;
        }
        self.host.run("mkdir", &["-p", "/run/sshd"])?;
        let config = format!(
            "Port 22\nHostKey {dir}/host\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             AuthorizedKeysFile {dir}/keys/%u\nClientAliveInterval 1\nClientAliveCountMax 2\n\
             MaxStartups 100\nLogLevel VERBOSE\n",
            dir = self.dir.path().display()
        );
        fs::write(self.path("sshd_config"), config)?;
        Ok(())
    }

    pub(crate) fn start_sshd(&self) -> anyhow::Result<()> {
        let sshd = program("sshd", "openssh-server")?;
        let daemon = self.host.spawn(sshd, &["-D", "-e", "-f", &self.path("sshd_config")])?;
        daemon.wait_for_log("Server listening", Duration::from_secs(10))?;
        *self.sshd.lock().expect("no test panics here") = Some(daemon);
        Ok(())
    }

    /// Kills sshd and the processes of its connections. Who has left his session stays.
    pub(crate) fn stop_sshd(&self) -> anyhow::Result<()> {
        let daemon = self.sshd.lock().expect("no test panics here").take().context("it runs")?;
        for pid in descendants(daemon.pid()) {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !line.contains("\0rollback\0") {
                kill(pid);
            }
        }
        drop(daemon);
        Ok(())
    }

    pub(crate) fn sshd_pid(&self) -> u32 {
        self.sshd.lock().expect("no test panics here").as_ref().expect("it runs").pid()
    }

    /// How many TCP connections sshd has accepted so far.
    pub(crate) fn connections(&self) -> usize {
        let sshd = self.sshd.lock().expect("no test panics here");
        sshd.as_ref().map_or(0, |it| it.log().matches("Connection from").count())
    }

    pub(crate) fn log(&self) -> String {
        let sshd = self.sshd.lock().expect("no test panics here");
        sshd.as_ref().map_or_else(String::new, Daemon::log)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// How to reach the host as `user`, with times that suit a test.
    pub(crate) fn as_user(&self, user: &str) -> SshHost {
        let mut host =
            SshHost::new(ADDRESS, user, self.host_key("host"), self.client_key("client"));
        host.mode =
            if user == "apply" || user == "stranger" { Mode::ForcedCommand } else { Mode::Sudo };
        host.timing = Timing {
            connect: Duration::from_secs(3),
            command: Duration::from_secs(5),
            keepalive: Duration::from_millis(200),
            silence: Duration::from_secs(1),
            retry: Duration::from_millis(50),
            retry_cap: Duration::from_millis(500),
        };
        host
    }

    pub(crate) fn host_key(&self, name: &str) -> HostKey {
        let line = fs::read_to_string(self.path(&format!("{name}.pub"))).expect("the key is there");
        line.parse().expect("ssh-keygen writes what we read")
    }

    pub(crate) fn client_key(&self, name: &str) -> ClientKey {
        let text = fs::read_to_string(self.path(name)).expect("the key is there");
        ClientKey::from_text(&text).expect("ssh-keygen writes what we read")
    }

    /// All packets between us and the host vanish until the returned value is dropped.
    pub(crate) fn cut(&self) -> impl Sized + use<> {
        self.host.black_hole("10.9.0.1".parse().expect("an address")).expect("nft drops packets")
    }

    /// Runs `test` on our machine.
    pub(crate) fn inside<T: Send>(&self, test: impl AsyncFnOnce() -> T + Send) -> T {
        let inside = self.client.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(test())
        });
        inside.expect("the lab was made by root")
    }

    /// Whether the host's table `t` has the chain `name`.
    pub(crate) fn has_chain(&self, name: &str) -> bool {
        let listing = self.host.run("nft", &["list", "ruleset"]).expect("nft lists");
        listing.contains(&format!("chain {name} "))
    }
}

/// A command that adds a chain to the host's table `t`.
pub(crate) fn add_chain(name: &str) -> Command {
    nft(&format!("add table inet t\nadd chain inet t {name}\n"))
}

/// A command that removes what [`add_chain`] added.
pub(crate) fn delete_chain(name: &str) -> Command {
    nft(&format!("delete chain inet t {name}\n"))
}

pub(crate) fn nft(document: &str) -> Command {
    Command::new(Program::Nft).args(["-f", "-"]).stdin(document)
}

pub(crate) fn list_links() -> Command {
    Command::new(Program::Ip).args(["-j", "link", "show", "eth0"])
}

/// Runs `command` again and again until it succeeds.
pub(crate) async fn run_until_well(ssh: &mut Ssh, command: &Command) -> Output {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match ssh.run(command).await {
            Ok(output) => return output,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                assert!(Instant::now() < deadline, "not within 20 seconds: {error}");
                let mut link = ssh.watch_link();
                let _ = tokio::time::timeout(Duration::from_secs(1), link.changed()).await;
            }
        }
    }
}

pub(crate) async fn failure(mut ssh: Ssh, command: &Command) -> ExecuteError {
    ssh.run(command).await.expect_err("it must fail")
}

/// All processes below `pid`, those farthest away first.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut found = Vec::new();
    for child in children.unwrap_or_default().split_whitespace().flat_map(str::parse) {
        found.extend(descendants(child));
        found.push(child);
    }
    found
}

pub(crate) fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let _already_gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}
