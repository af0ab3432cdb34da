//! What agents' pods ask the kernel for, they get: admission lets them in, and the kubelet sets it.

use anyhow::Context as _;
use serde_json::Value;

use crate::gateways::Published;

#[test]
fn agents_in_pods_have_windows_for_long_paths() -> anyhow::Result<()> {
    let Some(published) = Published::set()? else { return Ok(()) };
    // The namespace is the restricted one of the shipped role, and every agent is in it.
    let said = published.kubectl(&["get", "namespace", "portcullis-system", "-o", "json"])?;
    let namespace: Value = serde_json::from_str(&said)?;
    let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(enforced, "restricted");
    for pod in published.agents()? {
        let mut exec = published.cluster.control_plane().kubectl()?;
        exec.args(["exec", "-n", "portcullis-system", &pod, "--"]);
        exec.args(["/portcullis", "doctor", "--agent", "127.0.0.1:9181", "-o", "json"]);
        // A pod is no host that forwards: other checks may fail.
        let output = exec.output().context("run kubectl exec")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("doctor in {pod}: {complaint}"))?;
        let checks = report["checks"].as_array().context("no checks")?;
        let check = checks.iter().find(|it| it["name"] == "TCP windows");
        let check = check.with_context(|| format!("no windows in {report}"))?;
        assert_eq!(check["verdict"], "ok", "{check}");
        let found = check["found"].as_str().unwrap_or_default();
        assert!(found.contains("(net.ipv4.tcp_rmem, 32768 KiB)"), "{pod}: {found}");
        assert!(found.contains("(net.ipv4.tcp_wmem, 32768 KiB)"), "{pod}: {found}");
    }
    published.nothing_was_forbidden()
}
