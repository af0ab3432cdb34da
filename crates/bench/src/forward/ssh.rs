//! An update on a host elsewhere: over the standing session, and by a new `ssh` process.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testkit::sshd::{self, SshServer};
use testkit::{Lab, Machine};

use super::lag::APART;
use crate::Setting;
use crate::controller::Controller;
use crate::figures::{median, milliseconds, percentile};
use crate::objects::{NODE_PORT, moving, node, node_status, standing};
use crate::row::{Bar, Row};

/// How many host ports stand while one more comes and goes.
const STANDING: usize = 100;

/// Measures both ways to be allowed on a host.
pub(crate) fn run(setting: &Setting) -> Result<Vec<Row>> {
    sshd::available()?;
    ["forcedCommand", "sudo"].into_iter().map(|it| measure(setting, it)).collect()
}

fn measure(setting: &Setting, mode: &str) -> Result<Row> {
    let lab = Lab::as_root("bench-ssh")?;
    let (client, edge) = (lab.machine("client")?, lab.machine("edge")?);
    lab.link(&client, "eth0", &["10.9.0.1/24"], &edge, "eth0", &["10.9.0.2/24"])?;
    let server = server(&edge, &setting.portcullis, mode)?;
    // A machine of its own: the forced command takes nothing but what the controller sends.
    let other = lab.machine("other")?;
    lab.link(&client, "eth1", &["10.9.1.1/24"], &other, "eth0", &["10.9.1.2/24"])?;
    let peer = sshd::Options::new(&other, "10.9.1.2".parse()?)
        .user("peer")
        .sudoers("peer ALL=(root) NOPASSWD: /usr/sbin/nft -f -")
        .key_options("restrict")
        .start()?;

    let directory = tempfile::tempdir()?;
    let mut objects = vec![host(&server, mode)];
    for number in 1..=2 {
        let mut node = node(number);
        node["status"] = node_status(number, "2026-01-01T00:00:00Z");
        objects.push(node);
    }
    objects.push(standing(0, 1000, STANDING));
    for (number, object) in objects.iter().enumerate() {
        write(directory.path(), &format!("{number}.yaml"), object)?;
    }
    write(directory.path(), "moving.yaml", &moving(""))?;
    let manifests = directory.path().display().to_string();
    let arguments = ["--manifests", &manifests, "--host", "elsewhere"];
    let controller = Controller::start(&client, &setting.portcullis, &arguments)?;
    controller.settle()?;
    other.nft("add table inet peer\nadd set inet peer s { type inet_service; }\n")?;

    let (mut ours, mut fresh) = (Vec::new(), Vec::new());
    for round in 0..setting.rounds(70, 10) {
        let wished =
            [format!("9000:{NODE_PORT}"), format!("9000:{}", NODE_PORT + 1), String::new()];
        for wish in wished {
            let change = || write(directory.path(), "moving.yaml", &moving(&wish));
            let lag = controller.lag_of("edge", change)?;
            let begin = Instant::now();
            by_ssh(
                &peer,
                &client,
                "add element inet peer s { 7 }\ndelete element inet peer s { 7 }\n",
            )?;
            let process = begin.elapsed();
            // The first round only warms up.
            if round > 0 {
                ours.push(milliseconds(lag));
                fresh.push(milliseconds(process));
            }
            std::thread::sleep(APART);
        }
    }
    let note = format!(
        "{} changes at {STANDING} ports, p50 {:.1} ms beside {:.1} ms",
        ours.len(),
        median(&ours),
        median(&fresh)
    );
    Ok(Row::new(
        &format!("update over SSH p99, {mode}"),
        percentile(&ours, 0.99),
        "ms",
        Bar::AtMost(30.0),
    )
    .beside("a new ssh process for each update, p99", percentile(&fresh, 0.99))
    .note(note))
}

fn server(edge: &Machine, program: &Path, mode: &str) -> Result<SshServer> {
    let program = program.to_str().context("the program's path is no UTF-8")?;
    let options = sshd::Options::new(edge, "10.9.0.2".parse()?);
    let options = match mode {
        "forcedCommand" => options
            .sudoers(&format!("portcullis ALL=(root) NOPASSWD: {program} host-apply"))
            .key_options(&format!("restrict,command=\"sudo -n {program} host-apply\"")),
        _ => options.key_options("restrict").sudoers(
            "portcullis ALL=(root) NOPASSWD: /usr/sbin/nft -f -, \
             /usr/sbin/nft -j list table inet portcullis, /usr/sbin/conntrack -D *",
        ),
    };
    options.start()
}

fn host(server: &SshServer, mode: &str) -> Value {
    json!({
        "apiVersion": "portcullis.dev/v1alpha1", "kind": "Host",
        "metadata": { "name": "edge" },
        "spec": { "interfaces": ["eth0"], "executor": { "ssh": {
            "address": server.address().ip().to_string(), "port": server.address().port(),
            "user": server.user(), "mode": mode, "hostKey": server.host_key(),
            "keyFile": server.private_key(),
        }}},
    })
}

/// Replaces a manifest in one step, as an editor does.
fn write(directory: &Path, name: &str, object: &Value) -> Result<()> {
    let draft = directory.join(format!(".{name}.draft"));
    std::fs::write(&draft, object.to_string())?;
    Ok(std::fs::rename(&draft, directory.join(name))?)
}

/// What an update costs that starts `ssh` for itself.
fn by_ssh(server: &SshServer, from: &Machine, script: &str) -> Result<()> {
    let mut child = server
        .client(from)
        .args(["sudo", "-n", "/usr/sbin/nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("it is piped")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "ssh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
