//! What stays when the API server cannot be asked, or does not tell everything.

use testkit::Machine;
use testkit::kubernetes::AddressPlan;
use testkit::wait::until_ok;

use crate::objects::{host, service};
use crate::scene::{Scene, none_failed, sure};
use crate::stage::{PATIENCE, ROLE};

#[test]
fn ep09_nothing_is_removed_before_every_kind_was_listed() -> anyhow::Result<()> {
    let objects = [host(""), service("old", "8443")];
    let Some(scene) = Scene::set(&objects)? else { return Ok(()) };
    let first = scene.start()?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    drop(first);
    let rules = scene.rules()?;
    let prober = scene.prober()?;

    // Meanwhile one goes and another comes, and the next controller may not list EndpointSlices.
    scene.delete_service("old")?;
    scene.apply(&service("new", "9443"))?;
    let user = "portcullis-partial";
    scene.apply(&role_without(user, "endpointslices"))?;
    let kubeconfig = scene.account(user)?;
    let kubeconfig = kubeconfig.to_str().expect("a path of text");
    let second = scene.start_with(&["--no-leader-election", "--kubeconfig", kubeconfig])?;
    let listed = |it: &serde_json::Value, kind: &str| it["sources"][kind]["listed"] == true;
    scene.until(
        "all but one kind to be listed",
        || scene.status(),
        |it| {
            ["Service", "Node", "Pod", "Host"].iter().all(|kind| listed(it, kind))
                && it["sources"]["EndpointSlice"]["lastError"].is_string()
        },
    )?;
    assert_eq!(scene.rules()?, rules, "rules changed from partial knowledge");
    none_failed(&prober.stop()?);
    assert_eq!(scene.status()?["complete"], false);
    assert!(!second.refusals().is_empty(), "refusals are overlooked, also by the other tests");

    // Once it may, it catches up by itself.
    scene.apply(&role_without(user, "nothing"))?;
    scene.answered_by(9443, &["node-1", "node-2"])?;
    scene.closed(8443)?;
    second.daemon.check_alive()
}

#[test]
fn ep10_x05_an_outage_of_the_api_server_changes_no_traffic_and_nothing_is_missed()
-> anyhow::Result<()> {
    let objects = [host(""), service("stays", "8443"), service("goes", "9443")];
    let Some(scene) = Scene::set(&objects)? else { return Ok(()) };
    let controller = scene.start()?;
    for port in [8443, 9443] {
        scene.answered_by(port, &["node-1", "node-2"])?;
    }
    let plane = scene.cluster.control_plane();
    let prober = scene.prober()?;
    let rules = scene.rules()?;

    plane.stop_api_server()?;
    scene.until(
        "the controller to notice",
        || scene.status(),
        |it| it["sources"]["Service"]["lastError"].is_string(),
    )?;
    // Probed only until here: once the API server is back, Kubernetes may count nodes as lost
    // that it could not hear of.
    none_failed(&prober.stop()?);
    // The API server comes back with an empty memory, and the host does not see it yet: what
    // happens now, no watch will tell.
    let cut = Cut::between(&scene.edge.host)?;
    scene.start_api_server()?;
    scene.delete_service("goes")?;
    scene.apply(&service("comes", "7443"))?;
    assert_eq!(scene.rules()?, rules, "rules changed without knowledge");

    drop(cut);
    scene.answered_by(7443, &["node-1", "node-2"])?;
    scene.closed(9443)?;
    controller.daemon.check_alive()
}

#[test]
fn ep09_a_controller_that_starts_during_an_outage_keeps_the_rules() -> anyhow::Result<()> {
    let objects = [host(""), service("old", "8443")];
    let Some(scene) = Scene::set(&objects)? else { return Ok(()) };
    let first = scene.start()?;
    scene.answered_by(8443, &["node-1", "node-2"])?;
    let plane = scene.cluster.control_plane();
    let prober = scene.prober()?;
    plane.stop_api_server()?;
    drop(first);
    let second = scene.start()?;
    let started = scene.until(
        "the controller to try",
        || scene.status(),
        |it| it["sources"]["Service"]["lastError"].is_string(),
    );
    let attempts = prober.stop()?;
    // The others need the API server, whatever comes of this.
    scene.start_api_server()?;
    none_failed(&attempts);
    sure(started?["complete"] == false, "complete without an API server")?;
    until_ok("the controller to be up to date", PATIENCE, || {
        Ok((scene.status()?["complete"] == true).then_some(()))
    })?;
    scene.apply(&service("new", "9443"))?;
    scene.answered_by(9443, &["node-1", "node-2"])?;
    // Not asked here whether something was forbidden: an API server that has just started knows no role yet.
    second.daemon.check_alive()
}

/// The rules of the shipped ClusterRole without one resource, for a user of its own.
fn role_without(user: &str, resource: &str) -> String {
    let documents = ROLE.split("\n---\n");
    let shipped = documents.filter(|it| it.contains("\nkind: ClusterRole\n")).collect::<String>();
    let shipped = shipped.replace("name: portcullis-controller", &format!("name: {user}"));
    let shipped = shipped.replace(&format!("resources: [{resource}]"), "resources: [none]");
    format!(
        "{shipped}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{ name: {user} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {user} }}
subjects: [{{ apiGroup: rbac.authorization.k8s.io, kind: User, name: {user} }}]
"
    )
}

/// Nothing gets through between the host and the API server, until this is dropped.
struct Cut(Machine);

impl Cut {
    fn between(host: &Machine) -> anyhow::Result<Self> {
        let table = format!(
            "table inet outage {{ chain output {{ type filter hook output priority 0; \
             ip daddr {} meta l4proto tcp reject with tcp reset; }}; }}",
            AddressPlan::BRIDGE
        );
        host.run_with_input("nft", &["-f", "-"], &table)?;
        Ok(Self(host.clone()))
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _gone_with_the_lab = self.0.run("nft", &["delete", "table", "inet", "outage"]);
    }
}
