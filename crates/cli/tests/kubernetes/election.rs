//! Replicas that compete for one lease, and a host that the leader reaches over SSH.

use serde_json::Value;
use testkit::kubernetes::AddressPlan;
use testkit::lab::Daemon;
use testkit::sshd::{self, SshServer};
use testkit::{Machine, require, wait};

use crate::objects::{host, service};
use crate::scene::{Controller, PROGRAM, Scene, none_failed};
use crate::stage::PATIENCE;

#[test]
fn ep19_the_leader_drives_hosts_over_ssh_and_another_takes_over() -> anyhow::Result<()> {
    let Some(()) = require(sshd::available()) else { return Ok(()) };
    let Some(scene) = Scene::set(&[service("blog", "8443")])? else { return Ok(()) };
    let server = server(&scene.edge.host)?;
    scene.apply(&key(&server)?)?;
    scene.apply(&host(&over_ssh(&server)))?;
    let tower = scene.lab.machine("tower")?;
    scene.cluster.underlay().attach(&tower, "eth0", &["10.200.0.101/24", "fd00:200::101/64"])?;
    let replica = |port| Replica::start(&scene, &tower, port);

    let first = replica(9181)?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    let second = replica(9182)?;
    second.until("ready to take over", |it| it["complete"] == true && it["leader"] == false)?;
    assert_eq!(first.status()?["leader"], true);
    assert_eq!(second.status()?["hosts"], serde_json::json!({}), "the host has two drivers");
    assert_eq!(holder(&scene)?, first.identity());
    let prober = scene.prober()?;

    // Asked to stop, the leader gives the lease back; nobody has to wait for it to run out.
    tower.run("kill", &["-TERM", &first.pid()])?;
    first.controller.daemon.wait(PATIENCE)?;
    let given_back = std::time::Instant::now();
    second.until("the leader", |it| it["leader"] == true)?;
    let took = given_back.elapsed();
    assert!(took < std::time::Duration::from_secs(8), "the lease was not given back: {took:?}");
    scene.apply(&service("second", "9443"))?;
    scene.answered_by(9443, &["node-1", "node-2"])?;
    assert_eq!(holder(&scene)?, second.identity());

    // Killed, it leaves the lease to run out.
    let third = replica(9183)?;
    third.until("ready to take over", |it| it["complete"] == true && it["leader"] == false)?;
    second.controller.nothing_was_forbidden();
    drop(second);
    third.until("the leader", |it| it["leader"] == true)?;
    scene.apply(&service("third", "7443"))?;
    scene.answered_by(7443, &["node-1", "node-2"])?;
    none_failed(&prober.stop()?);
    first.controller.nothing_was_forbidden();
    third.controller.nothing_was_forbidden();
    Ok(())
}

/// One controller among several on a machine.
struct Replica {
    controller: Controller,
    tower: Machine,
    page: String,
}

impl Replica {
    fn start(scene: &Scene, tower: &Machine, port: u16) -> anyhow::Result<Self> {
        let page = format!("127.0.0.1:{port}");
        let kubeconfig = scene.kubeconfig.to_str().expect("a path of text");
        let arguments = ["controller", "--kubeconfig", kubeconfig, "--listen", &page];
        let daemon: Daemon = tower.spawn(PROGRAM, &arguments)?;
        Ok(Self { controller: Controller { daemon }, tower: tower.clone(), page })
    }

    fn pid(&self) -> String {
        self.controller.daemon.pid().to_string()
    }

    /// What it calls itself in the lease.
    fn identity(&self) -> String {
        format!("{}-{}", self.tower.name(), self.pid())
    }

    fn status(&self) -> anyhow::Result<Value> {
        let arguments = ["status", "--address", &self.page, "--output", "json"];
        Ok(serde_json::from_str(&self.tower.output(PROGRAM, &arguments, "")?.stdout)?)
    }

    fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        wait::until(&format!("{} to be {what}", self.page), PATIENCE, || {
            self.status().is_ok_and(|it| is_so(&it)).then_some(())
        })
        .map_err(|error| error.context(self.controller.daemon.log()))
    }
}

/// An SSH server on the host whose account may run `host-apply`, and nothing else.
fn server(host: &Machine) -> anyhow::Result<SshServer> {
    sshd::Options::new(host, AddressPlan::GATEWAY.into())
        .key_options(&format!("restrict,command=\"sudo -n {PROGRAM} host-apply\""))
        .sudoers(&format!("portcullis ALL=(root) NOPASSWD: {PROGRAM} host-apply"))
        .start()
}

/// The Secret that the shipped Role lets the controller read.
fn key(server: &SshServer) -> anyhow::Result<String> {
    let key = std::fs::read_to_string(server.private_key())?;
    let key = serde_json::to_string(&key)?;
    Ok(format!(
        "apiVersion: v1\nkind: Secret\n\
         metadata: {{ name: portcullis-ssh, namespace: portcullis }}\n\
         stringData: {{ id_ed25519: {key} }}\n"
    ))
}

/// The executor of a Host that is reached at this server.
fn over_ssh(server: &SshServer) -> String {
    format!(
        "executor:\n  ssh:\n    address: {}\n    user: {}\n    hostKey: {}\n    \
         keySecretRef: {{ namespace: portcullis, name: portcullis-ssh, key: id_ed25519 }}\n    \
         mode: forcedCommand\n",
        server.address().ip(),
        server.user(),
        server.host_key()
    )
}

fn holder(scene: &Scene) -> anyhow::Result<String> {
    let spec = "jsonpath={.spec.holderIdentity}";
    scene.kubectl(&["get", "lease", "-n", "portcullis", "portcullis", "-o", spec])
}
