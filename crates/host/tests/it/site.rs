//! Two machines: one that we are on, and a host with a real sshd and its accounts.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use command::{Command, Output, Program};
use host::{ClientKey, ExecuteError, Executor, HostKey, Mode, Ssh, SshHost, Timing};
use testkit::sshd::{self, SshServer};
use testkit::{Lab, Machine};

/// Where the host is.
pub(crate) const ADDRESS: &str = "10.9.0.2";

/// An account of the host.
struct Account {
    user: &'static str,
    sudoers: &'static str,
    key_options: &'static str,
}

const ACCOUNTS: [Account; 5] = [
    // Bound to the forced command, which sudo starts as root.
    Account {
        user: "apply",
        sudoers: concat!(
            "apply ALL=(root) NOPASSWD: ",
            env!("CARGO_BIN_EXE_host-apply-under-test"),
            " serve /run/portcullis"
        ),
        key_options: concat!(
            "restrict,command=\"sudo -n ",
            env!("CARGO_BIN_EXE_host-apply-under-test"),
            " serve /run/portcullis\""
        ),
    },
    // May run what the nftables backend needs.
    Account {
        user: "nftables",
        sudoers: "nftables ALL=(root) NOPASSWD: /usr/sbin/nft -f -",
        key_options: "restrict",
    },
    // What the predecessor's documentation grants, and the program that we add to it.
    Account {
        user: "epok",
        sudoers: "epok ALL=(root) NOPASSWD: /usr/sbin/iptables, /usr/sbin/iptables-save, \
                  /usr/sbin/iptables-restore",
        key_options: "restrict",
    },
    // May log in and nothing else.
    Account { user: "nobody-special", sudoers: "", key_options: "restrict" },
    // Its key is bound to nothing of ours.
    Account { user: "stranger", sudoers: "", key_options: "restrict" },
];

pub(crate) struct Site {
    // Server and machines go before the lab.
    pub(crate) server: SshServer,
    user: &'static str,
    pub(crate) host: Machine,
    client: Machine,
    _lab: Lab,
}

impl Site {
    /// Builds the site with this account; `None` after a loud skip.
    #[track_caller]
    pub(crate) fn new(name: &str, user: &str) -> Option<Self> {
        Self::with(name, user, "")
    }

    /// The same with more lines in the server's configuration.
    #[track_caller]
    pub(crate) fn with(name: &str, user: &str, configuration: &str) -> Option<Self> {
        testkit::require(sshd::available().and_then(|()| Lab::as_root(name)))
            .map(|lab| Self::build(lab, user, configuration).expect("the site is built"))
    }

    fn build(lab: Lab, user: &str, configuration: &str) -> anyhow::Result<Self> {
        let account = ACCOUNTS.iter().find(|it| it.user == user).context("the account")?;
        let client = lab.machine("client")?;
        let host = lab.machine("host")?;
        lab.link(&client, "eth0", &["10.9.0.1/24"], &host, "eth0", &["10.9.0.2/24"])?;
        let server = sshd::Options::new(&host, ADDRESS.parse()?)
            .user(account.user)
            .sudoers(account.sudoers)
            .key_options(account.key_options)
            .configuration(&format!(
                "ClientAliveInterval 1\nClientAliveCountMax 2\nLogLevel VERBOSE\n{configuration}"
            ))
            .start()?;
        Ok(Self { server, user: account.user, host, client, _lab: lab })
    }

    /// How many TCP connections the server has accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.server.log().matches("Connection from").count()
    }

    /// The processes of the host whose command line has `text`.
    pub(crate) fn processes(&self, text: &str) -> Vec<u32> {
        let here = fs::read_link(self.host.net_path()).expect("the machine is there");
        let entries = fs::read_dir("/proc").expect("it lists");
        entries
            .filter_map(|it| it.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid: &u32| {
                let namespace = fs::read_link(format!("/proc/{pid}/ns/net"));
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                namespace.is_ok_and(|it| it == here) && line.replace('\0', " ").contains(text)
            })
            .collect()
    }

    /// How to reach the host, with times that suit a test.
    pub(crate) fn ssh_host(&self) -> SshHost {
        let key = fs::read_to_string(self.server.private_key()).expect("the key is there");
        let key = ClientKey::from_text(&key).expect("ssh-keygen writes what we read");
        let mut host = SshHost::new(ADDRESS, self.user, self.host_key(), key);
        if self.user != "apply" && self.user != "stranger" {
            host.mode = Mode::Sudo;
        }
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

    pub(crate) fn host_key(&self) -> HostKey {
        self.server.host_key().parse().expect("ssh-keygen writes what we read")
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

pub(crate) fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let _already_gone = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}
