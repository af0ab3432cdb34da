//! A real SSH server lets in who it should, and can die in every way.

use std::process::Output;
use std::time::Duration;

use testkit::sshd::{self, Options, SshServer};
use testkit::{Lab, Machine};

#[test]
fn a_pinned_login_runs_a_command_with_the_environment_of_sshd() -> anyhow::Result<()> {
    let Some(site) = Site::build("login", |it| it)? else { return Ok(()) };
    let output = site.run("id -un; echo $HOME; echo $PATH; hostname")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        stdout,
        "portcullis\n/run/ssh-server-22/home\n/usr/local/bin:/usr/bin:/bin:/usr/games\nhost\n",
        "{output:?}"
    );
    assert!(site.server.log().contains("Accepted publickey for portcullis"));
    Ok(())
}

#[test]
fn another_host_key_is_noticed() -> anyhow::Result<()> {
    let Some(site) = Site::build("host-key", |it| it)? else { return Ok(()) };
    let other = Options::new(&site.host, "10.7.0.1".parse()?).port(2222).start()?;
    assert_ne!(other.host_key(), site.server.host_key());
    let pinned = format!("[10.7.0.1]:2222 {}\n", site.server.host_key());
    std::fs::write(other.known_hosts(), pinned)?;
    let output = other.client(&site.client).arg("true").output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Host key verification failed"), "{stderr}");
    Ok(())
}

#[test]
fn a_forced_command_is_all_that_a_restricted_key_can_do() -> anyhow::Result<()> {
    let options = r#"restrict,command="echo forced: $SSH_ORIGINAL_COMMAND""#;
    let Some(site) = Site::build("forced", |it| it.key_options(options))? else { return Ok(()) };
    let output = site.run("reboot now")?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "forced: reboot now\n", "{output:?}");
    Ok(())
}

#[test]
fn sudo_permits_the_given_lines_and_no_other() -> anyhow::Result<()> {
    let sudoers = "portcullis ALL=(root) NOPASSWD: /usr/bin/id -u";
    let Some(site) = Site::build("sudo", |it| it.sudoers(sudoers))? else { return Ok(()) };
    let output = site.run("sudo -n id -u")?;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n", "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "sudo can resolve the host's name");
    let output = site.run("sudo -n id -g")?;
    assert!(!output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn sudoers_lines_that_mean_nothing_are_an_error() -> anyhow::Result<()> {
    if testkit::require(sshd::available()).is_none() {
        return Ok(());
    }
    let error = Site::build("bad-sudoers", |it| it.sudoers("portcullis may everything"));
    let error = error.map(|_| ()).expect_err("visudo does not know this");
    assert!(format!("{error:#}").contains("syntax error"), "{error:#}");
    Ok(())
}

#[test]
fn the_account_exists_only_in_its_machine() -> anyhow::Result<()> {
    let Some(site) = Site::build("account", |it| it.user("only-inside"))? else { return Ok(()) };
    assert_eq!(String::from_utf8_lossy(&site.run("id -un")?.stdout), "only-inside\n");
    assert!(site.host.run("id", &["only-inside"]).is_ok());
    assert!(site.client.run("id", &["only-inside"]).is_err());
    let accounts = std::fs::read_to_string("/etc/passwd")?;
    assert!(!accounts.contains("only-inside"));
    Ok(())
}

#[test]
fn a_killed_server_ends_its_sessions_and_comes_back_with_the_same_key() -> anyhow::Result<()> {
    let Some(site) = Site::build("killed", |it| it)? else { return Ok(()) };
    let mut session = site.server.client(&site.client);
    let session = testkit::lab::Daemon::start("ssh", {
        session.arg("echo in; sleep 1000");
        session
    })?;
    session.wait_for_log("in", Duration::from_secs(20))?;

    site.server.kill();

    let status = session.wait(Duration::from_secs(20))?;
    assert_eq!(status.code(), Some(255), "{}", session.log());
    assert!(!site.run("true")?.status.success());
    site.server.restart()?;
    assert!(site.run("true")?.status.success(), "{}", site.server.log());
    assert_eq!(site.server.log().matches("Server listening on").count(), 2);
    Ok(())
}

#[test]
fn a_black_hole_is_silent_until_it_is_lifted() -> anyhow::Result<()> {
    let Some(site) = Site::build("black-hole", |it| it)? else { return Ok(()) };
    let hole = site.host.black_hole("10.7.0.2".parse()?)?;
    let mut client = site.server.client(&site.client);
    let output = client.args(["-o", "ConnectTimeout=1", "true"]).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("Connection timed out"), "{stderr}");
    drop(hole);
    assert!(site.run("true")?.status.success());
    Ok(())
}

struct Site {
    _lab: Lab,
    host: Machine,
    client: Machine,
    server: SshServer,
}

impl Site {
    fn build(name: &str, options: impl FnOnce(Options) -> Options) -> anyhow::Result<Option<Self>> {
        if testkit::require(sshd::available()).is_none() {
            return Ok(None);
        }
        let Some(lab) = testkit::require(Lab::as_root(name)) else { return Ok(None) };
        let (host, client) = (lab.machine("host")?, lab.machine("client")?);
        lab.link(&host, "eth0", &["10.7.0.1/24"], &client, "eth0", &["10.7.0.2/24"])?;
        let server = options(Options::new(&host, "10.7.0.1".parse()?)).start()?;
        Ok(Some(Self { _lab: lab, host, client, server }))
    }

    fn run(&self, command: &str) -> anyhow::Result<Output> {
        Ok(self.server.client(&self.client).arg(command).output()?)
    }
}
