//! Bad input: every message names what is wrong, where, and what to do; the exit code is 2.

use super::program::{portcullis, run};

const HOST: &str = "
apiVersion: portcullis.dev/v1alpha1
kind: Host
metadata: { name: edge-a }
spec: { interfaces: [eth0] }
";

#[test]
fn usage_errors_end_with_2() {
    for arguments in ["", "nonsense", "plan --nonsense", "plan -o yaml", "controller --listen here"]
    {
        let ran = portcullis(arguments.split_whitespace()).expect_code(2);
        assert!(ran.stderr.contains("Usage") || ran.stderr.contains("--help"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    refuses("plan -f /nonexistent.yaml", &["--manifests: /nonexistent.yaml:", "No such file"]);
    refuses(
        "plan -f examples/forward --listing /nonexistent",
        &["--listing: /nonexistent:", "nft -j list table"],
    );
    refuses(
        "plan -f examples/forward --addresses /nonexistent",
        &["--addresses: /nonexistent:", "ip -j addr show"],
    );
    refuses(
        "plan -f examples/forward --addresses Cargo.toml",
        &["--addresses: Cargo.toml:", "save it again"],
    );
    refuses(
        "plan -f examples/forward --listing Cargo.toml",
        &["--listing: Cargo.toml:", "not a listing", "save it again"],
    );
    refuses("plan -f examples/forward --listing a --live", &["--listing", "--live"]);
    refuses("plan -f - -f examples/forward", &["`-` stands alone"]);
    refuses("controller --manifests /nonexistent", &["--manifests: /nonexistent:", "create it"]);
    refuses("plan --kubeconfig /nonexistent", &["--kubeconfig: /nonexistent:"]);
    refuses(
        "controller --manifests examples/forward --log a=b=c",
        &["--log (or PORTCULLIS_LOG): \"a=b=c\""],
    );
    refuses(
        "controller --manifests examples/forward --resync 0",
        &["--resync", "between 1 and 86400"],
    );
    refuses("controller --manifests examples/forward --host Edge_A", &["--host: `Edge_A`"]);
}

#[test]
fn hosts_that_are_not_there_are_named() {
    refuses(
        "plan -f examples/forward --host edge-b",
        &["--host: \"edge-b\"", "edge-a", "correct the name"],
    );
    refuses(
        "plan -f examples/forward/nodes.yaml",
        &["there is no Host among the objects", "--interfaces"],
    );
}

#[test]
fn declared_hosts_are_checked_flag_by_flag() {
    let plan = "plan -f examples/forward/nodes.yaml --host here";
    refuses(
        &format!("{plan} --interfaces eth0;x"),
        &["--interfaces: \"eth0;x\": not the name of an interface"],
    );
    refuses(
        &format!("{plan} --interfaces a --external-interface b"),
        &["--external-interface: \"b\"", "add it to interfaces"],
    );
    refuses(
        &format!("{plan} --interfaces a --backend pf"),
        &["--backend: \"pf\"", "nftables or iptables"],
    );
    refuses(
        &format!(
            "{plan} --interfaces a --external-interface a --extra-internal-addresses 10.0.0.0/8"
        ),
        &["--extra-internal-addresses: \"10.0.0.0/8\": not an IP address"],
    );
    refuses(&format!("{plan} --masquerade"), &["--interfaces"]);
}

#[test]
fn a_bad_document_is_named_and_the_others_are_planned() {
    let good = "
apiVersion: v1
kind: Service
metadata: { namespace: web, name: good, annotations: { portcullis.dev/host-ports: '80:30080' } }
spec: { type: NodePort, ports: [{ port: 80, nodePort: 30080 }] }
";
    let bad = "apiVersion: v1\nkind: Service\nmetadata: [\n";
    let node = "
apiVersion: v1
kind: Node
metadata: { name: n }
status:
  addresses: [{ type: InternalIP, address: 192.0.2.1 }]
  conditions: [{ type: Ready, status: 'True' }]
";
    let text = format!("{HOST}---{node}---{good}---\n{bad}");
    let ran = run(["plan", "-f", "-"]).stdin(&text).end().expect_code(2);
    assert!(ran.stderr.contains("error: standard input:"), "{}", ran.stderr);
    assert!(ran.stdout.contains("Service web/good"), "{}", ran.stdout);
}

#[test]
fn a_hostile_annotation_is_a_finding_and_reaches_no_terminal() {
    let hostile = "
apiVersion: v1
kind: Service
metadata:
  namespace: web
  name: evil
  annotations: { portcullis.dev/host-ports: \"22:\\e[2J$(reboot)\\u202e\" }
spec: { type: NodePort, ports: [{ port: 80, nodePort: 30080 }] }
";
    let text = format!("{HOST}---{hostile}");
    let ran = run(["plan", "-f", "-", "--exit-code"]).stdin(&text).end().expect_code(3);
    assert!(
        ran.stdout.contains("error: Service web/evil: portcullis.dev/host-ports: "),
        "{}",
        ran.stdout
    );
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
}

#[test]
fn a_bad_host_object_is_refused_with_every_problem() {
    let text = HOST.replace("[eth0]", "['eth 0', eth0], backend: pf");
    let ran = run(["plan", "-f", "-"]).stdin(&text).end().expect_code(2);
    for part in ["Host edge-a", "spec.interfaces[0]", "spec.backend"] {
        assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
    }
}

#[test]
fn a_bad_host_object_costs_only_its_own_plan() {
    let bad = HOST.replace("edge-a", "edge-b").replace("[eth0]", "[]");
    let text = format!("{HOST}---{bad}");
    let ran = run(["plan", "-f", "-"]).stdin(&text).end().expect_code(2);
    assert!(ran.stderr.contains("Host edge-b"), "{}", ran.stderr);
    assert!(ran.stdout.contains("Host edge-a (nftables"), "{}", ran.stdout);
}

#[test]
fn a_misspelt_field_of_a_host_is_reported() {
    let text = HOST.replace("[eth0]", "[eth0], externalInteface: eth0");
    let ran = run(["plan", "-f", "-"]).stdin(&text).end().expect_code(2);
    assert!(ran.stderr.contains("externalInteface"), "{}", ran.stderr);
}

#[track_caller]
fn refuses(arguments: &str, parts: &[&str]) {
    let ran = portcullis(arguments.split(' ')).expect_code(2);
    for part in parts {
        assert!(ran.stderr.contains(part), "no {part:?} in:\n{}", ran.stderr);
    }
    assert_eq!(ran.stdout, "");
}
