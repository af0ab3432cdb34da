//! Against a real API server: what is installed is accepted, and the cluster is read and checked.

use testkit::kubernetes::ControlPlane;

use super::program::{Ran, portcullis, root, run};

#[test]
fn a_cluster_takes_the_manifests_and_is_read_and_checked() -> anyhow::Result<()> {
    let Some(()) = testkit::require(ControlPlane::available()) else { return Ok(()) };
    let control_plane = ControlPlane::shared()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let kubeconfig = control_plane.admin().kubeconfig().to_str().expect("a path of text");
    let with = |arguments: &[&str]| -> Ran {
        run(arguments.iter().copied().chain(["--kubeconfig", kubeconfig])).end()
    };

    // Before the installation the doctor says what to do.
    let doctor = with(&["doctor", "--kube", "-o", "json"]);
    let check = |doctor: &Ran, name: &str| {
        let json = doctor.json();
        let checks = json["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|it| it["area"] == "cluster" && it["name"] == name)
    };
    let missing = check(&doctor, "Host objects").expect("the check is there");
    assert_eq!(missing["verdict"], "failure", "{missing}");
    assert!(
        missing["remedy"].as_str().is_some_and(|it| it.contains("install manifests")),
        "{missing}"
    );

    let manifests = portcullis(["install", "manifests"]).expect_code(0).stdout;
    runtime.block_on(control_plane.apply_manifest(&manifests))?;
    let permissions = portcullis(["install", "epok-permissions", "--account", "default/epok"]);
    let permissions = permissions.expect_code(0).stdout;
    assert!(permissions.contains("    name: epok\n    namespace: default\n"), "{permissions}");
    runtime.block_on(control_plane.apply_manifest(&permissions))?;
    // Nodes with two addresses cannot be applied, only listed: that is how the API keys the list.
    for file in ["host", "services"] {
        let text = std::fs::read_to_string(root().join(format!("examples/forward/{file}.yaml")))?;
        let text = text.replace("namespace: web", "namespace: default");
        let text = text.replace("namespace: dns", "namespace: default");
        let text = text.replace("namespace: mail", "namespace: default");
        runtime.block_on(control_plane.apply_manifest(&text))?;
    }

    let doctor = with(&["doctor", "--kube", "-o", "json"]);
    for name in ["API server", "Host objects", "permissions"] {
        let check = check(&doctor, name).expect("the check is there");
        assert_eq!(check["verdict"], "ok", "{check}");
    }
    // The account that we ship may do all that the controller does, and plan with it.
    let shipped = tempfile::NamedTempFile::new()?;
    let mut access: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(kubeconfig)?)?;
    access["users"][0]["user"]["as"] = "system:serviceaccount:portcullis:portcullis".into();
    std::fs::write(shipped.path(), access.to_string())?;
    let shipped = shipped.path().to_str().expect("a path of text");
    let doctor = run(["doctor", "--kube", "-o", "json", "--kubeconfig", shipped]).end();
    let permissions = check(&doctor, "permissions").expect("the check is there");
    assert_eq!(permissions["verdict"], "ok", "{permissions}");
    run(["plan", "--kubeconfig", shipped]).end().expect_code(0);

    // So may Epok's own account, with what `install epok-permissions` prints.
    let epok = tempfile::NamedTempFile::new()?;
    access["users"][0]["user"]["as"] = "system:serviceaccount:default:epok".into();
    std::fs::write(epok.path(), access.to_string())?;
    run(["plan", "--kubeconfig", epok.path().to_str().expect("a path of text")])
        .end()
        .expect_code(0);

    let planned = with(&["plan"]).expect_code(0).stdout;
    assert!(planned.contains("Host edge-a"), "{planned}");
    assert!(planned.contains("Service default/smtp"), "{planned}");
    let status = with(&["status", "--kube"]).expect_code(0).stdout;
    assert!(status.contains("no controller has said anything about it yet"), "{status}");
    Ok(())
}
