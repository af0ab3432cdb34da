//! Whole clusters as manifests, each beside the plan that follows from it.
//!
//! Bless with `UPDATE_EXPECT=1`; read the difference before committing it.

use std::path::Path;

use api::host::Host;
use expect_test::expect_file;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use planner::cluster_view::Object;
use planner::forward::forward_plan;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::objects::IntoObject;
use crate::world::{facts, forwards, view};

#[test]
fn a_homelab_of_the_predecessor_moves_over_as_it_is() {
    check("predecessor");
}

#[test]
fn a_dual_stack_edge_with_all_of_our_words() {
    check("edge");
}

#[test]
fn ep_11_hostile_manifests_cost_only_themselves() {
    check("hostile");
}

/// Plans `<case>.yaml` and compares with `<case>.plan`.
#[track_caller]
fn check(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata");
    let manifests = read(&folder.join(case).with_extension("yaml"));
    let view = view(manifests.split("\n---\n").map(object));
    let desired = forward_plan(&view, "edge", &facts()).expect("a plan");
    let forwarding = desired.forwarding.to_string();
    let head = forwarding.lines().take_while(|it| !it.contains(" -> "));
    let head: String = head.flat_map(|it| [it, "\n"]).collect();
    expect_file![folder.join(case).with_extension("plan")].assert_eq(&(head + &forwards(&desired)));
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own cases")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the case is there")
}

fn object(manifest: &str) -> Object {
    let value: Value = serde_saphyr::from_str(manifest).expect("sound YAML");
    match value["kind"].as_str().unwrap_or_default() {
        "Service" => typed::<Service>(&value).object(),
        "Pod" => typed::<Pod>(&value).object(),
        "Node" => typed::<Node>(&value).object(),
        "EndpointSlice" => typed::<EndpointSlice>(&value).object(),
        "Host" => typed::<Host>(&value).object(),
        other => panic!("no such kind: {other}"),
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).expect("a sound object")
}
