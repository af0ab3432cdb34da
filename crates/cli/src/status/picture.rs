//! The state of a controller as people read it.

use std::collections::BTreeMap;
use std::fmt;

use api::host::Host;
use serde::{Deserialize, Serialize};

/// What `/status` says; fields that are not shown are left out, and a newer controller may say
/// more.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Snapshot {
    version: String,
    leader: bool,
    complete: bool,
    sources: BTreeMap<String, SourceState>,
    hosts: BTreeMap<String, HostState>,
    findings: Vec<Finding>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SourceState {
    listed: bool,
    last_error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HostState {
    backend: String,
    executor: String,
    revision: u64,
    forwards: u64,
    drift_repaired: u64,
    last_pass_micros: u64,
    last_error: Option<String>,
    last_applied: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Finding {
    severity: String,
    object: ObjectRef,
    field: String,
    value: String,
    problem: String,
    remedy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    kind: String,
    namespace: Option<String>,
    name: String,
}

/// What is shown, one line each.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) heading: Option<String>,
    pub(super) troubles: Vec<String>,
    pub(super) hosts: Vec<HostLine>,
    pub(super) findings: Vec<String>,
}

/// One host.
#[derive(Debug, Serialize)]
pub(super) struct HostLine {
    pub(super) name: String,
    /// Whether it does what is asked of it.
    pub(super) good: bool,
    pub(super) forwards: u64,
    pub(super) executor: String,
    /// What is wrong, or since when it is right.
    pub(super) state: String,
}

impl From<Snapshot> for Picture {
    fn from(snapshot: Snapshot) -> Self {
        let role = if snapshot.leader { "leader" } else { "standby" };
        let complete =
            if snapshot.complete { "everything listed" } else { "first lists incomplete" };
        let troubles = snapshot.sources.iter().filter_map(|(kind, state)| {
            match (&state.last_error, state.listed) {
                (Some(error), _) => Some(format!("{kind}: {error}")),
                (None, false) => Some(format!("{kind}: not listed yet")),
                (None, true) => None,
            }
        });
        Self {
            heading: Some(format!("portcullis {}, {role}, {complete}", snapshot.version)),
            troubles: troubles.collect(),
            hosts: snapshot.hosts.into_iter().map(HostLine::from).collect(),
            findings: snapshot.findings.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<(String, HostState)> for HostLine {
    fn from((name, state): (String, HostState)) -> Self {
        let HostState { backend, executor, revision, forwards, drift_repaired, .. } = state;
        let good = state.last_error.is_none() && revision > 0;
        let told = match (state.last_error, revision) {
            (Some(error), _) => format!("failing: {error}"),
            (None, 0) => "nothing applied yet".to_owned(),
            (None, _) => {
                let took = state.last_pass_micros;
                let (millis, rest) = (took / 1000, took % 1000 / 100);
                let since = state.last_applied.unwrap_or_default();
                let drift = match drift_repaired {
                    0 => String::new(),
                    count => format!(", {count} foreign changes undone"),
                };
                format!("in sync since {since} (last pass {millis}.{rest} ms{drift})")
            }
        };
        Self { name, good, forwards, executor: format!("{executor}, {backend}"), state: told }
    }
}

impl From<&Host> for HostLine {
    fn from(host: &Host) -> Self {
        let status = host.status.clone().unwrap_or_default();
        let bad = status.conditions.iter().filter(|it| it.status != "True");
        let bad: Vec<_> = bad.map(|it| format!("{}: {}", it.type_, it.message)).collect();
        let state = match (status.conditions.is_empty(), bad.is_empty()) {
            (true, _) => "no controller has said anything about it yet".to_owned(),
            (false, true) => "good".to_owned(),
            (false, false) => bad.join("; "),
        };
        let executor = match &host.spec.executor.ssh {
            Some(ssh) => format!("ssh {}@{}:{}", ssh.user, ssh.address, ssh.port),
            None => "local".to_owned(),
        };
        Self {
            name: host.metadata.name.clone().unwrap_or_default(),
            good: bad.is_empty() && !status.conditions.is_empty(),
            forwards: status.forwards.and_then(|it| u64::try_from(it).ok()).unwrap_or_default(),
            executor: format!("{executor}, {}", host.spec.backend),
            state,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, object, field, value, problem, remedy } = self;
        let namespace = object.namespace.as_ref().map(|it| format!("{it}/")).unwrap_or_default();
        let ObjectRef { kind, name, .. } = object;
        write!(f, "{severity}: {kind} {namespace}{name}: {field}: {value:?}: {problem}; {remedy}")
    }
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        lines.extend(self.heading.clone());
        lines.extend(self.troubles.iter().map(|it| format!("  source {it}")));
        if self.hosts.is_empty() {
            lines.push("no hosts".to_owned());
        }
        let width = self.hosts.iter().map(|it| it.name.chars().count()).max().unwrap_or_default();
        for host in &self.hosts {
            let HostLine { name, good, forwards, executor, state } = host;
            let mark = if *good { "ok  " } else { "FAIL" };
            lines.push(format!(
                "{mark} {name:width$}  {forwards:>5} host ports  {executor}  {state}"
            ));
        }
        lines.extend(self.findings.iter().cloned());
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_what_is_wrong() {
        let snapshot = r#"{
            "version": "0.1.0", "leader": true, "complete": false, "future": 1,
            "sources": { "Pod": { "listed": false }, "Node": { "listed": true } },
            "hosts": {
                "edge-a": { "backend": "nftables", "executor": "local", "revision": 3,
                    "forwards": 12, "lastPassMicros": 4210, "driftRepaired": 2,
                    "lastApplied": "2026-01-02T03:04:05Z" },
                "b": { "backend": "iptables", "executor": "ssh epok@10.0.0.1:22",
                    "lastError": "no route" }
            },
            "findings": [ { "severity": "error", "reason": "X",
                "object": { "kind": "Service", "namespace": "web", "name": "blog" },
                "field": "f", "value": "v", "problem": "p", "remedy": "r" } ]
        }"#;
        let picture: Picture =
            serde_json::from_str::<Snapshot>(snapshot).expect("a snapshot").into();
        let expected = expect_test::expect![[r#"
            portcullis 0.1.0, leader, first lists incomplete
              source Pod: not listed yet
            FAIL b           0 host ports  ssh epok@10.0.0.1:22, iptables  failing: no route
            ok   edge-a     12 host ports  local, nftables  in sync since 2026-01-02T03:04:05Z (last pass 4.2 ms, 2 foreign changes undone)
            error: Service web/blog: f: "v": p; r
        "#]];
        expected.assert_eq(&format!("{picture}\n"));
    }
}
