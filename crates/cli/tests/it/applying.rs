//! The forced command refuses everything that is not ours.
//!
//! It is asked inside a machine of a lab, so that a mistake in the list harms nothing.

use serde_json::{Value, json};

use testkit::{Lab, Machine};

use super::program::{PROGRAM, run};

#[test]
fn commands_outside_the_list_are_refused() {
    let Some((_lab, machine)) = machine("refused") else { return };
    let refused = |command: Value| refused(&machine, command);
    refused(json!({ "program": "nft", "args": ["flush", "ruleset"] }));
    refused(json!({ "program": "nft", "args": ["-f", "/etc/shadow"] }));
    refused(json!({ "program": "nft", "args": ["-f", "-"], "stdin": "include \"/etc/shadow\"\n" }));
    refused(json!({ "program": "nft", "args": ["-f", "-"], "stdin": "flush ruleset\n" }));
    refused(json!({ "program": "nft", "args": ["-f", "-"], "stdin": "table inet others {\n}\n" }));
    refused(json!({ "program": "nft", "args": ["-j", "list", "ruleset"] }));
    refused(json!({ "program": "iptables", "args": ["--modprobe=/tmp/x", "-L"] }));
    refused(json!({ "program": "iptables-restore", "args": ["--noflush", "--wait"],
        "stdin": "*nat\n-A PREROUTING -j ACCEPT\nCOMMIT\n" }));
    refused(json!({ "program": "iptables-restore", "args": ["--modprobe=/tmp/x"] }));
    refused(json!({ "program": "conntrack", "args": ["-F"] }));
    refused(json!({ "program": "ip", "args": ["link", "delete", "eth0"] }));
    refused(json!({ "program": "sysctl", "args": ["-w", "net.ipv4.ip_forward=0"] }));
}

#[track_caller]
fn refused(machine: &Machine, command: Value) {
    let request = json!({ "request": "run", "id": 1, "command": command, "withinMs": 5000 });
    let answers = ask(machine, &request);
    let answer = answers.last().expect("an answer");
    assert_eq!(answer["answer"], "failed", "{command} was answered with {answer}");
    let error = answer["error"].to_string();
    assert!(error.to_lowercase().contains("refused"), "{error}");
}

#[test]
fn programs_that_are_not_on_any_list_end_the_conversation() {
    let Some((_lab, machine)) = machine("unknown") else { return };
    for program in ["sh", "/bin/sh", "nft; sh"] {
        let command = json!({ "program": program, "args": [] });
        let request = json!({ "request": "run", "id": 1, "command": command, "withinMs": 5000 });
        let answers = ask(&machine, &request);
        assert_eq!(answers.last().expect("an answer")["answer"], "bye", "{answers:?}");
    }
}

#[test]
fn what_the_client_asked_sshd_for_is_not_looked_at() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = directory.path().join("run");
    let runtime = runtime.to_str().expect("a path of text");
    let run = run(["host-apply", "--runtime-directory", runtime]);
    let ran = run.env("SSH_ORIGINAL_COMMAND", "touch /tmp/pwned; sh").end().expect_code(0);
    assert_eq!(ran.stdout, "");
}

#[test]
fn our_own_commands_run() {
    let Some((_lab, machine)) = machine("own") else { return };
    let command = json!({ "program": "ip", "args": ["-j", "addr", "show"] });
    let request = json!({ "request": "run", "id": 7, "command": command, "withinMs": 5000 });
    let answers = ask(&machine, &request);
    let answer = answers.last().expect("an answer");
    assert_eq!(answer["answer"], "done", "{answer}");
    assert_eq!(answer["id"], 7);
    let listing = answer["outputs"][0]["stdout"].as_str().expect("a listing");
    assert!(listing.contains("\"lo\""), "{listing}");
}

fn machine(name: &str) -> Option<(Lab, Machine)> {
    let lab = testkit::require(Lab::new(name))?;
    let machine = lab.machine("host").ok()?;
    Some((lab, machine))
}

/// Greets, asks one thing, hangs up, and returns every answer.
fn ask(machine: &Machine, request: &Value) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let runtime = directory.path().join("run");
    let runtime = runtime.to_str().expect("a path of text");
    let hello = json!({ "request": "hello", "version": 1, "silenceMs": 10_000 });
    let arguments = ["host-apply", "--runtime-directory", runtime];
    let output = machine.output(PROGRAM, &arguments, &format!("{hello}\n{request}\n"));
    let output = output.expect("it runs");
    output.stdout.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect()
}
