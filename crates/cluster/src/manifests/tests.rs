//! What the reader of manifests says and keeps, file by file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use expect_test::{Expect, expect};
use planner::cluster_view::Change;
use proptest::prelude::*;

use super::files::Files;
use super::scan::{Content, Found};
use super::*;

const BLOG: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: blog
  namespace: web
  annotations: { portcullis.dev/host-ports: '443' }
spec:
  type: NodePort
";
const NODE: &str = "\
apiVersion: v1
kind: Node
metadata: { name: n1 }
status:
  addresses: [{ type: InternalIP, address: 10.0.0.1 }]
  conditions: [{ type: Ready, status: 'True' }]
";
const HOST: &str = "\
apiVersion: portcullis.dev/v1alpha1
kind: Host
metadata: { name: edge-a }
spec: { interfaces: [eth0] }
";

#[test]
fn reads_every_kind_from_several_documents() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: blog-1, \
                 namespace: web}\naddressType: IPv4\nendpoints: []\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, creationTimestamp: null}\n";
    check_text(
        &[BLOG, NODE, HOST, slice, pod].join("---\n"),
        expect![[r#"
            Service web/blog
            Pod default/p
            Node n1
            EndpointSlice web/blog-1
            Host edge-a
        "#]],
    );
}

#[test]
fn reads_what_kubectl_prints() {
    check_text(
        r#"{
	"apiVersion": "v1",
	"kind": "List",
	"items": [
		{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "x",
			"managedFields": [{"manager": "kubectl"}], "creationTimestamp": "2026-01-02T03:04:05Z"},
			"spec": {"ports": [{"port": 80, "targetPort": "http"}]}, "status": {"loadBalancer": {}}},
		{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}},
		{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "c"}, "spec": {"ports": 7}}
	],
	"metadata": {"resourceVersion": ""}
}
"#,
        expect![[r#"
            Service x/a
            Warning x.yaml:8:3: ConfigMap of v1 is not read; read are Service, Pod, Node, EndpointSlice (discovery.k8s.io/v1) and Host (portcullis.dev/v1alpha1), alone or in a List
            Error x.yaml:9:3: Service default/c: items[2]: invalid type: integer `7`, expected a sequence; correct it; what it last said stays in effect until then
        "#]],
    );
}

#[test]
fn a_broken_document_costs_only_itself() {
    check_text(
        &format!(
            "{BLOG}---\napiVersion: v1\nkind: Service\nmetadata:\n  name: bad\n  x: [\n---\n{NODE}"
        ),
        expect![[r#"
            Service web/blog
            Node n1
            Error x.yaml:14:6: Service default/bad: unclosed bracket '[': "x: ["; correct it; what it last said stays in effect until then
        "#]],
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_place() {
    check_text(
        "# comment\n\napiVersion: v1\nkind: Service\nmetadata:\n  name: blog\nspec:\n  ports:\n  - port: eighty\n",
        expect![[r#"
            Error x.yaml:9:11: Service default/blog: invalid i32: "- port: eighty"; correct it; what it last said stays in effect until then
        "#]],
    );
    check_text(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n  name: n2\n",
        expect![[r#"
            Error x.yaml:5:3: Node n1: duplicate mapping key `name` is not allowed here: "name: n2"; correct it; what it last said stays in effect until then
        "#]],
    );
    check_text(
        "apiVersion: v1\nkind: [Service]\n",
        expect![[r#"
            Error x.yaml:2:7: expected string scalar: "kind: [Service]"; correct it; what it last said stays in effect until then
        "#]],
    );
    check_text(
        "- a\n- b\n",
        expect![[r#"
            Error x.yaml:1:1: expected mapping start: "- a"; correct it; what it last said stays in effect until then
        "#]],
    );
    check_text(
        "\0",
        expect![[r#"
            Error x.yaml:1:1: unexpected character: `\u{0}': "\0"; correct it; what it last said stays in effect until then
        "#]],
    );
    check_text(
        "a: &a [*a, *a]\n",
        expect![[r#"
            Error x.yaml:1:8: Recursive reference not allowed here: "a: &a [*a, *a]"; correct it; what it last said stays in effect until then
        "#]],
    );
    check_text(
        "{ \"apiVersion\": \"v1\", \"kind\": \"Node\", ",
        expect![[r#"
            Error x.yaml:1:1: unclosed bracket '{': "{ \"apiVersion\": \"v1\", \"kind\": \"Node\","; correct it; what it last said stays in effect until then
        "#]],
    );
}

#[test]
fn what_is_not_read_is_said() {
    check_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
        expect![[r#"
        Warning x.yaml:1:1: Deployment of apps/v1 is not read; read are Service, Pod, Node, EndpointSlice (discovery.k8s.io/v1) and Host (portcullis.dev/v1alpha1), alone or in a List
    "#]],
    );
    check_text(
        "kind: Service\nmetadata: {name: x}\n",
        expect![[r#"
        Error x.yaml:1:1: apiVersion is missing; read are Service, Pod, Node, EndpointSlice (discovery.k8s.io/v1) and Host (portcullis.dev/v1alpha1), alone or in a List
    "#]],
    );
    check_text(
        "apiVersion: v1\nmetadata: {name: x}\n",
        expect![[r#"
        Error x.yaml:1:1: kind is missing; read are Service, Pod, Node, EndpointSlice (discovery.k8s.io/v1) and Host (portcullis.dev/v1alpha1), alone or in a List
    "#]],
    );
}

#[test]
fn names_are_checked_as_the_api_server_does() {
    check_text(
        "apiVersion: v1\nkind: Node\nmetadata: {}\n",
        expect![[r#"
        Error x.yaml:1:1: Node: metadata.name is missing; correct it; what it last said stays in effect until then
    "#]],
    );
    check_text(
        "apiVersion: v1\nkind: Node\nmetadata: {name: 'n1; reboot'}\n",
        expect![[r#"
        Error x.yaml:1:1: Node: metadata.name: `n1; reboot` is not the name of an object: expected lower case letters, digits, - and .; correct it; what it last said stays in effect until then
    "#]],
    );
    check_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: blog, namespace: \"a\\nb\"}\n",
        expect![[r#"
            Error x.yaml:1:1: Service: metadata.namespace: `a\nb` is not the name of an object: expected lower case letters, digits, - and .; correct it; what it last said stays in effect until then
        "#]],
    );
}

#[test]
fn fields_that_nobody_knows_are_said_and_refuse_a_host() {
    check_text(
        &HOST.replace("spec: {", "spec: { externalInteface: eth1,"),
        expect![[r#"
        Error x.yaml:1:1: Host edge-a: no such field: spec.externalInteface; the object is not read, and what it last said stays in effect; correct its name or remove it
    "#]],
    );
    check_text(
        &BLOG.replace("  type:", "  externalTraficPolicy: Local\n  type:"),
        expect![[r#"
            Service web/blog
            Warning x.yaml:8:3: Service web/blog: no such field: spec.externalTraficPolicy; it has no effect; correct its name or remove it
        "#]],
    );
}

#[test]
fn one_name_in_two_places_is_decided_by_the_order_of_paths() {
    let mut files = Files::default();
    files.update(found(&[
        ("b.yaml", &BLOG.replace("443", "2")),
        ("a.yaml", &BLOG.replace("443", "1")),
    ]));
    check(
        &mut files,
        expect![[r#"
        applied Service web/blog
        Warning b.yaml:1:1: Service web/blog already stands in a.yaml:1, which counts; remove one of the two, or rename it
    "#]],
    );
    let Some(Change::Reset(_, services)) = files.reset().into_iter().next() else {
        panic!("a reset of Services comes first");
    };
    assert!(format!("{services:?}").contains(r#""portcullis.dev/host-ports": "1""#));
}

#[test]
fn a_broken_file_keeps_its_last_good_state_until_it_is_corrected() {
    let mut files = Files::default();
    files.update(found(&[("a.yaml", &format!("{BLOG}---\n{NODE}")), ("b.yaml", HOST)]));
    files.reset();

    // Its Service is broken: it stays, and the change of the Node counts.
    let broken = BLOG.replace("spec:", "spec: {");
    let node = NODE.replace("10.0.0.1", "10.0.0.2");
    files.update(found(&[("a.yaml", &format!("{broken}---\n{node}")), ("b.yaml", HOST)]));
    check(
        &mut files,
        expect![[r#"
            applied Node n1
            Error a.yaml:7:7: Service web/blog: unclosed bracket '{': "spec: {"; correct it; what it last said stays in effect until then
        "#]],
    );

    // Nothing of it can be read, not even names: all of it stays.
    files.update(found(&[("a.yaml", "\u{1}"), ("b.yaml", HOST)]));
    check(
        &mut files,
        expect![[r#"
            Error a.yaml:1:1: unexpected character: `\u{1}': "\u{1}"; correct it; what it last said stays in effect until then
        "#]],
    );

    // Corrected, and without the Node: the Node is gone.
    files.update(found(&[("a.yaml", BLOG), ("b.yaml", HOST)]));
    check(
        &mut files,
        expect![[r#"
        deleted Node n1
    "#]],
    );
}

#[test]
fn a_file_that_cannot_be_read_changes_nothing_and_one_that_is_gone_takes_its_objects() {
    let mut files = Files::default();
    files.update(found(&[("a.yaml", BLOG), ("b.yaml", HOST)]));
    files.reset();

    let mut unreadable = found(&[("b.yaml", HOST)]);
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    unreadable.insert("a.yaml".into(), Content::Failed(denied));
    files.update(unreadable);
    check(
        &mut files,
        expect![[r#"
        Error a.yaml: cannot be read: permission denied; what it last said stays in effect; make it a readable UTF-8 text, or remove it
    "#]],
    );

    files.update([("b.yaml".into(), Content::Unchanged)].into());
    check(
        &mut files,
        expect![[r#"
        deleted Service web/blog
    "#]],
    );
}

#[test]
fn what_never_was_good_is_unreadable_by_name() {
    let mut files = Files::default();
    files.update(found(&[("a.yaml", &BLOG.replace("spec:", "spec: {"))]));
    let unreadable: Vec<_> = files.problems().into_iter().map(|it| it.unreadable).collect();
    let blog = api::object::ObjectRef::namespaced(api::object::ObjectKind::Service, "web", "blog");
    assert_eq!(unreadable, [crate::source::Unreadable::Object(blog)]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let _ = read_text(Path::new("x.yaml"), &text);
    }

    #[test]
    fn no_change_of_a_good_text_makes_it_panic(at in 0..400_usize, with in "[\\PC\n\t]{0,4}", cut in 0..20_usize) {
        let text = [BLOG, NODE, HOST].join("---\n");
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        let text = format!("{}{with}{}", &text[..at], &text[end..]);
        let _ = read_text(Path::new("x.yaml"), &text);
    }

    /// Whatever happens to a file, following it ends where reading it anew ends.
    #[test]
    fn changes_lead_to_what_a_reset_says(steps in prop::collection::vec(prop::collection::btree_map(0..3_u8, 0..6_usize, 0..4), 1..6)) {
        let texts = [BLOG, NODE, HOST, "", "apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n", "---\n"];
        let found = |step: &BTreeMap<u8, usize>| -> Found {
            let of = |it: &usize| Content::Text(texts[*it].to_owned());
            step.iter().map(|(file, it)| (PathBuf::from(format!("{file}.yaml")), of(it))).collect()
        };
        let mut files = Files::default();
        files.reset();
        let mut followed = BTreeMap::new();
        for step in &steps {
            files.update(found(step));
            for change in files.changes() {
                match change {
                    Change::Applied(object) => { followed.insert(object.reference(), format!("{object:?}")); }
                    Change::Deleted(reference) => { prop_assert!(followed.remove(&reference).is_some()); }
                    Change::Reset(..) => prop_assert!(false, "only the first is a reset"),
                }
            }
        }
        let mut anew = Files::default();
        anew.update(found(steps.last().expect("there is one")));
        let anew: BTreeMap<_, _> = anew.reset().into_iter().flat_map(|it| match it {
            Change::Reset(_, objects) => objects,
            Change::Applied(_) | Change::Deleted(_) => Vec::new(),
        }).map(|it| (it.reference(), format!("{it:?}"))).collect();
        prop_assert_eq!(followed, anew);
    }
}

fn found(files: &[(&str, &str)]) -> Found {
    let text = |it: &str| Content::Text(it.to_owned());
    files.iter().map(|(path, it)| (PathBuf::from(path), text(it))).collect()
}

#[track_caller]
fn check_text(text: &str, expected: Expect) {
    let mut files = Files::default();
    files.update(found(&[("x.yaml", text)]));
    let resets = files.reset();
    assert_eq!(resets.len(), 5, "a complete set of each kind, even when it is empty");
    expected.assert_eq(&print(resets, &files));
}

/// Prints what changed, and all problems.
#[track_caller]
fn check(files: &mut Files, expected: Expect) {
    let changes = files.changes();
    expected.assert_eq(&print(changes, files));
}

fn print(changes: Vec<Change>, files: &Files) -> String {
    let mut text = String::new();
    for change in changes {
        let lines: Vec<String> = match change {
            Change::Applied(object) => vec![format!("applied {}", object.reference())],
            Change::Deleted(reference) => vec![format!("deleted {reference}")],
            Change::Reset(_, objects) => {
                objects.iter().map(|it| it.reference().to_string()).collect()
            }
        };
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
    }
    for problem in files.problems() {
        let _ = writeln!(text, "{:?} {problem}", problem.severity);
    }
    text
}
