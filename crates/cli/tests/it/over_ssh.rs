//! Hosts that are reached over SSH, with a real sshd and the accounts that we document.

use testkit::sshd::{self, SshServer};
use testkit::{Lab, Machine};

use super::program::{PROGRAM, portcullis};

const ADDRESS: &str = "10.9.0.2";

struct Site {
    server: SshServer,
    host: Machine,
    client: Machine,
    _lab: Lab,
}

/// A host whose account is allowed what `install` prints for this mode.
fn site(name: &str, mode: &str) -> Option<Site> {
    let lab = testkit::require(sshd::available().and_then(|()| Lab::as_root(name)))?;
    let print = |arguments: &[&str]| {
        let first = ["install"].into_iter();
        portcullis(first.chain(arguments.iter().copied())).expect_code(0).stdout
    };
    let sudoers = print(&["sudoers", "--mode", mode, "--program", PROGRAM]);
    let placeholder =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";
    let line = print(&["authorized-keys", "--key", placeholder, "--program", PROGRAM]);
    let options = line.split(" ssh-ed25519").next().unwrap_or_default().to_owned();
    let options = if mode == "forced-command" { options } else { "restrict".to_owned() };
    let build = || -> anyhow::Result<Site> {
        let client = lab.machine("client")?;
        let host = lab.machine("host")?;
        lab.link(&client, "eth0", &["10.9.0.1/24"], &host, "eth0", &["10.9.0.2/24"])?;
        let server = sshd::Options::new(&host, ADDRESS.parse()?)
            .sudoers(&sudoers)
            .key_options(&options)
            .start()?;
        Ok(Site { server, host, client, _lab: lab })
    };
    Some(build().expect("the site is built"))
}

impl Site {
    /// A directory with a Host that leads here, nodes and a Service.
    fn manifests(&self, mode: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let key = self.server.private_key();
        let host = format!(
            "apiVersion: portcullis.dev/v1alpha1\nkind: Host\nmetadata: {{ name: edge-a }}\nspec:\n  \
             interfaces: [eth0]\n  executor:\n    ssh:\n      address: {ADDRESS}\n      user: {}\n      \
             mode: {mode}\n      hostKey: {:?}\n      keyFile: {}\n",
            self.server.user(),
            self.server.host_key().trim(),
            key.display()
        );
        std::fs::write(directory.path().join("host.yaml"), host).expect("a manifest");
        for name in ["nodes.yaml", "services.yaml"] {
            let from = super::program::root().join("examples/forward").join(name);
            std::fs::copy(from, directory.path().join(name)).expect("a manifest");
        }
        directory
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        self.client.run(PROGRAM, arguments).expect("the program succeeds")
    }
}

#[test]
fn the_documented_accounts_are_enough() {
    for (mode, of_host) in [("forced-command", "forcedCommand"), ("nft", "sudo")] {
        let Some(site) = site(mode, mode) else { return };
        let directory = site.manifests(of_host);
        let manifests = directory.path().to_str().expect("a path of text");

        let planned = site.run(&["plan", "-f", manifests, "--live"]);
        assert!(
            planned.contains("Host edge-a (nftables, ssh portcullis@10.9.0.2:22): has 0, wants 5"),
            "{planned}"
        );
        let doctor = site.client.output(PROGRAM, &["doctor", "-f", manifests, "-o", "json"], "");
        let doctor: serde_json::Value =
            serde_json::from_str(&doctor.expect("it runs").stdout).expect("JSON");
        let checks = doctor["checks"].as_array().expect("checks").iter();
        let remote: Vec<_> = checks.filter(|it| it["area"] == "Host edge-a").collect();
        assert!(
            remote.iter().any(|it| it["name"] == "host key" && it["verdict"] == "ok"),
            "{remote:?}"
        );
        assert!(
            remote.iter().any(|it| it["name"] == "listings" && it["verdict"] == "ok"),
            "{remote:?}"
        );

        let ruleset = site.run(&["render", "-f", manifests, "--live"]);
        site.host.nft(&ruleset).expect("the kernel takes it");
        let planned = site.run(&["plan", "-f", manifests, "--live", "--exit-code"]);
        assert!(planned.contains("nothing to do"), "{planned}");

        let cleaned = site.run(&["cleanup", "-f", manifests]);
        assert!(cleaned.contains("edge-a (ssh portcullis@10.9.0.2:22): removed"), "{cleaned}");
        let tables = site.host.run("nft", &["list", "tables"]).expect("a list");
        assert!(!tables.contains("portcullis"), "{tables}");
    }
}

#[test]
fn another_host_key_is_a_failure_of_the_doctor() {
    let Some(site) = site("key", "nft") else { return };
    let directory = site.manifests("sudo");
    let file = directory.path().join("host.yaml");
    let text = std::fs::read_to_string(&file).expect("a manifest");
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVkZ2UtYSBob3N0IGtleSBmb3IgdGVzdHMgb25seSEh";
    std::fs::write(&file, text.replace(site.server.host_key().trim(), other)).expect("a manifest");
    let manifests = directory.path().to_str().expect("a path of text");
    let output = site.client.output(PROGRAM, &["doctor", "-f", manifests], "").expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.contains("has another key than the pinned one"), "{}", output.stdout);
    let output =
        site.client.output(PROGRAM, &["plan", "-f", manifests, "--live"], "").expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.contains("is pinned"), "{}", output.stderr);
}

#[test]
fn epok_says_which_key_answers_and_connects_only_when_it_is_pinned() {
    let Some(site) = site("pin", "epok") else { return };
    let user = format!("{}@{ADDRESS}", site.server.user());
    let key = site.server.private_key();
    let ssh = ["epok", "clean", "ssh", "-H", &user, "-k", key.to_str().expect("a path of text")];

    let output = site.client.output(PROGRAM, &ssh, "").expect("it runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let key = site.server.host_key().split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    assert!(output.stderr.contains(&format!("EPOK_SSH_HOST_KEY='{key}'")), "{}", output.stderr);

    let known_hosts = site.server.known_hosts();
    let known_hosts = known_hosts.to_str().expect("a path of text");
    let pinned: Vec<_> = ssh.into_iter().chain(["--known-hosts", known_hosts]).collect();
    let said = site.run(&pinned);
    assert!(said.contains("nothing of ours is there"), "{said}");
}

/// The predecessor's account may not use nft; the program falls back to iptables and says so.
#[test]
fn epok_falls_back_to_iptables_where_only_that_is_allowed() {
    for mode in ["epok", "iptables"] {
        falls_back(mode);
    }
}

#[track_caller]
fn falls_back(mode: &str) {
    let Some(site) = site("fallback", mode) else { return };
    let directory = site.manifests("sudo");
    std::fs::remove_file(directory.path().join("host.yaml")).expect("no Host object");
    let manifests = directory.path().to_str().expect("a path of text");
    let user = format!("{}@{ADDRESS}", site.server.user());
    let key = site.server.private_key();
    let arguments = ["epok", "-i", "eth0", "--manifests", manifests, "ssh", "-H", &user];
    let more =
        ["-k", key.to_str().expect("a path of text"), "--host-key", site.server.host_key().trim()];
    let arguments: Vec<_> = arguments.into_iter().chain(more).collect();
    let epok = site.client.spawn(PROGRAM, &arguments).expect("it starts");
    let applied = |_: &testkit::lab::Daemon| {
        let rules = site.host.run("iptables-save", &["-t", "nat"]).ok()?;
        rules.contains("30443").then_some(())
    };
    let limit = std::time::Duration::from_secs(30);
    epok.wait_until("rules of iptables", limit, applied).expect("they come");
    assert!(epok.log().contains("so iptables is used instead"), "{}", epok.log());
}
