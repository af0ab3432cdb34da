//! Agents as the cluster runs them: without privileges, with probes and limits, and watched.

use std::io::{Read as _, Write as _};

use anyhow::Context as _;
use testkit::Protocol::Tcp;
use testkit::tunnels::{AGENT_PAGES, CLUSTER};
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at, program};
use crate::sockets::connect;

/// The user of `deploy/agent/deployment.yaml`.
const USER: u32 = 65532;

#[test]
fn wb11_an_agent_without_any_privilege_does_its_work_and_has_no_file_open_to_write()
-> anyhow::Result<()> {
    let Some(place) = Place::empty("unprivileged-agent", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    place.start_gateway(1)?;
    place.write("blog", &Service::default().yaml())?;
    // What the pod gets from Secrets and the API server, it gets from files here.
    for name in ["", "manifests", "authority", "authority/authority.pem", "authority/g1.secret"] {
        std::os::unix::fs::chown(place.path(name), Some(USER), Some(USER))?;
    }
    let [user, program] = [USER.to_string(), program().display().to_string()];
    let [manifests, authority] =
        ["manifests", "authority"].map(|it| place.path(it).display().to_string());
    let nothing = ["--inh-caps", "-all", "--ambient-caps", "-all", "--bounding-set", "-all"];
    let account = ["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"];
    let agent = ["--manifests", &manifests, "--ca-dir", &authority, "--cluster", CLUSTER];
    let rest = ["--name", "a1", "--listen", AGENT_PAGES];
    let arguments =
        [&account[..], &nothing, &["--", program.as_str(), "agent"], &agent, &rest].concat();
    let daemon = place.agent(1).spawn("setpriv", &arguments)?;
    place.reached(at(1, 443), Tcp).with_context(|| daemon.log())?;

    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = |key: &str| status.lines().find(|it| it.starts_with(key)).unwrap_or_default();
    assert_eq!(line("Uid:"), format!("Uid:\t{user}\t{user}\t{user}\t{user}"));
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(line(set), format!("{set}\t0000000000000000"));
    }
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1");
    let written = written_files(daemon.pid())?;
    assert!(written.is_empty(), "its file system can be read-only but for {written:?}");
    Ok(())
}

/// The files that a process has open for writing.
fn written_files(pid: u32) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let directory = format!("/proc/{pid}/fd");
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // One that was closed meanwhile was not written to for long.
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let number = entry.file_name().to_string_lossy().into_owned();
        let information = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
        let information = information.unwrap_or_default();
        let flags = information.lines().find_map(|it| it.strip_prefix("flags:")).unwrap_or("0");
        // O_WRONLY and O_RDWR are the two lowest bits (open(2)).
        let writes = u32::from_str_radix(flags.trim(), 8)? & 3 != 0;
        if writes && target.is_absolute() && !target.starts_with("/dev") {
            found.push(target.display().to_string());
        }
    }
    Ok(found)
}

#[test]
fn wb11_metrics_tell_of_links_round_trips_reconnects_and_bytes() -> anyhow::Result<()> {
    let Some(place) = Place::build("metrics", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let metric = |begin: &str| -> Option<f64> {
        let page = place.agent(1).page(AGENT_PAGES, "/metrics").ok()?;
        // A whole page of OpenMetrics ends so.
        let lines = page.strip_suffix("# EOF\n")?.lines();
        lines.filter(|it| it.starts_with(begin)).find_map(|it| it.rsplit(' ').next()?.parse().ok())
    };
    let until = |begin: &str, good: fn(f64) -> bool| {
        let mut last = None;
        wait::until(begin, PATIENCE, || {
            last = metric(begin);
            last.filter(|it| good(*it))
        })
        .with_context(|| format!("last it was {last:?}"))
    };
    // The visitor says something, the backend answers with its name.
    let mut stream = connect(place.visitor(), at(1, 443))?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0])?;
    drop(stream);
    until("portcullis_link_up{gateway=\"g1\"", |it| it > 0.5)?;
    until("portcullis_link_rtt_seconds{gateway=\"g1\"", |it| it > 0.0 && it < 1.0)?;
    for direction in ["received", "sent"] {
        let backend = "portcullis_relayed_bytes_total{backend=\"tcp:web/blog:443\"";
        until(&format!("{backend},direction=\"{direction}\"}}"), |it| it > 0.0)?;
    }
    let reconnects = "portcullis_reconnects_total{gateway=\"g1\"}";
    let before = metric(reconnects).unwrap_or(0.0);
    place.kill_gateway(1)?;
    until("portcullis_link_up{gateway=\"g1\"", |it| it < 0.5)?;
    place.start_gateway(1)?;
    place.reached(at(1, 443), Tcp)?;
    until("portcullis_link_up{gateway=\"g1\"", |it| it > 0.5)?;
    let after = until(reconnects, |it| it > 0.0)?;
    assert!(after > before, "{before} reconnects, then {after}");
    Ok(())
}

#[test]
fn wb11_what_a_cluster_is_given_has_probes_limits_and_no_privileges() -> anyhow::Result<()> {
    const IMAGE: &str = "registry.example.com/portcullis@sha256:\
                         0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let output = std::process::Command::new(program())
        .args(["install", "agent", "--image", IMAGE])
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text)?;
    let of_kind = |kind: &str| documents.iter().find(|it| it["kind"] == kind).cloned();
    let deployment = of_kind("Deployment").context("no Deployment")?;
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], serde_json::Value::Null);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], USER);
    let containers = pod["containers"].as_array().context("no containers")?;
    let [agent] = containers.as_slice() else { panic!("one container, not {containers:?}") };
    assert_eq!(agent["image"], IMAGE, "pinned by its digest");
    assert_eq!(agent["command"], serde_json::Value::Null, "nothing is installed at the start");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert!(agent[probe]["httpGet"]["path"].is_string(), "{probe} of {agent}");
    }
    // What sockets buffer counts as the Pod's, and windows for long paths are 32 MiB each.
    assert_eq!(agent["resources"]["limits"]["memory"], "256Mi");
    let context = &agent["securityContext"];
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"], serde_json::json!({ "drop": ["ALL"] }));
    let namespace = of_kind("Namespace").context("no Namespace")?;
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    let roles = documents.iter().filter(|it| it["kind"].as_str().is_some_and(is_role));
    for rule in roles.flat_map(|it| it["rules"].as_array().into_iter().flatten()) {
        assert!(!rule.to_string().contains("\"*\""), "a wildcard: {rule}");
    }
    Ok(())
}

fn is_role(kind: &str) -> bool {
    kind == "Role" || kind == "ClusterRole"
}
