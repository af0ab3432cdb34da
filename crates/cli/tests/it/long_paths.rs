//! One connection over a long path is as fast as its window is large: what is printed for gateways
//! and agents sets it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::program::{portcullis, root};

const WINDOWS: [&str; 2] = ["net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"];

#[test]
fn a_gateways_machine_gets_windows_for_long_paths() {
    let limits = limits();
    let largest = |key: &str| limits[key].split_whitespace().next_back().map(str::to_owned);
    for key in [&WINDOWS[..], &["net.core.rmem_max", "net.core.wmem_max"]].concat() {
        assert_eq!(largest(key).as_deref(), Some("33554432"), "{key}");
    }
    let place = tempfile::tempdir().expect("a directory");
    let path = |name: &str| place.path().join(name).display().to_string();
    for name in ["m", "ca"] {
        std::fs::create_dir(path(name)).expect("a directory");
    }
    let (manifests, authority) = (path("m"), path("ca"));
    let declared = portcullis([
        "gateway",
        "create",
        "fra1",
        "--endpoint",
        "gw.example.com",
        "--cluster",
        "home",
        "--manifests",
        &manifests,
        "--ca-dir",
        &authority,
    ]);
    let data: Value = serde_saphyr::from_str(&declared.expect_code(0).stdout).expect("YAML");
    let files = data["write_files"].as_array().expect("files");
    let file = files.iter().find(|it| it["path"] == "/etc/sysctl.d/60-portcullis.conf");
    assert_eq!(file.expect("the limits")["content"], Value::from(printed()));
    let commands = data["runcmd"].as_array().expect("commands");
    let at = |what: &str| {
        let found = commands.iter().position(|it| it.to_string().contains(what));
        found.unwrap_or_else(|| panic!("no {what} in {commands:?}"))
    };
    let gateway = "portcullis-gateway.service";
    assert!(at("/etc/sysctl.d/60-portcullis.conf") < at(gateway), "{commands:?}");
}

/// The kernel itself is asked, in a network of its own: what is printed is what it takes.
#[test]
fn the_kernel_takes_what_is_printed() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(testkit::Lab::new("limits")) else { return Ok(()) };
    let machine = lab.machine("gateway")?;
    for (key, value) in limits() {
        let path = key.trim_start_matches("net.").replace('.', "/");
        if key.starts_with("net.core.") && key != "net.core.somaxconn" {
            continue; // Not a network's own; they belong to the whole machine.
        }
        machine.sysctl(&path, &value)?;
        let told = machine.read_sysctl(&path)?;
        let same = told.split_whitespace().eq(value.split_whitespace());
        assert!(same, "{key}: {told} instead of {value}");
    }
    Ok(())
}

#[test]
fn agents_in_a_network_of_their_own_get_the_same_and_others_none() {
    let windows = |more: &[&str]| -> BTreeMap<String, String> {
        let text =
            portcullis(["install", "agent"].iter().chain(more).copied()).expect_code(0).stdout;
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("documents");
        let pods = documents.iter().map(|it| &it["spec"]["template"]["spec"]);
        let pod = pods.into_iter().find(|it| it["containers"].is_array()).expect("agents");
        let sysctls = pod["securityContext"]["sysctls"].as_array().into_iter().flatten();
        let text = |it: &Value| it.as_str().expect("a text").to_owned();
        sysctls.map(|it| (text(&it["name"]), text(&it["value"]))).collect()
    };
    let limits = limits().into_iter().filter(|(key, _)| WINDOWS.contains(&&**key)).collect();
    assert_eq!(windows(&[]), limits);
    // The API server refuses them to pods in the network of their node.
    assert_eq!(windows(&["--host-network"]), BTreeMap::new());
    let said = portcullis(["install", "agent", "--host-network"]).expect_code(0).stderr;
    assert!(said.contains("on each node") && said.contains("--format sysctl"), "{said}");
    assert_eq!(windows(&["--no-sysctls"]), BTreeMap::new());
    portcullis(["install", "agent", "--host-network", "--no-sysctls"]).expect_code(2);
    let node = std::fs::read_to_string(root().join("deploy/agent/host-network.yaml"));
    let node = node.expect("checked in");
    for (key, value) in limits {
        assert!(node.contains(&format!("{key} = {value}")), "{key}");
    }
}

fn printed() -> String {
    portcullis(["install", "gateway", "--format", "sysctl"]).expect_code(0).stdout
}

/// What is printed, by key.
fn limits() -> BTreeMap<String, String> {
    let text = printed();
    let lines = text.lines().filter(|it| !it.starts_with('#'));
    let pairs = lines.map(|it| it.split_once(" = ").unwrap_or_else(|| panic!("{it}")));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
