//! One test's turn on the stage: Host `edge`, controllers, and what clients see.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::border::{HOST, at};
use testkit::lab::Daemon;
use testkit::probe::{Answer, Attempt, Outcome, Probe, Prober, SILENCE};
use testkit::{Machine, Protocol, wait};

use crate::objects::{NAMESPACE, STRAIGHT};
use crate::stage::{self, PATIENCE, Stage};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// A turn. Its end removes what the test made: Services, Hosts, rules.
pub(crate) struct Scene {
    stage: MutexGuard<'static, Stage>,
}

impl std::ops::Deref for Scene {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl Scene {
    /// Waits for its turn, and writes these objects. `None` where nodes cannot run.
    pub(crate) fn set(objects: &[String]) -> anyhow::Result<Option<Self>> {
        let Some(stage) = stage::take()? else { return Ok(None) };
        let scene = Self { stage };
        for object in objects {
            scene.apply(object)?;
        }
        Ok(Some(scene))
    }

    /// Starts the controller on the host, with the shipped role.
    pub(crate) fn start(&self) -> anyhow::Result<Controller> {
        let kubeconfig = self.kubeconfig.to_str().context("a path of text")?;
        self.start_with(&["--kubeconfig", kubeconfig])
    }

    /// Starts the controller on the host with these arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> anyhow::Result<Controller> {
        let mut all = vec!["controller", "--host", "edge"];
        all.extend(arguments);
        Ok(Controller { daemon: self.edge.host.spawn(PROGRAM, &all)? })
    }

    /// Starts the API server again, and returns when the nodes have been heard of: before that they may still be
    /// counted as lost.
    pub(crate) fn start_api_server(&self) -> anyhow::Result<()> {
        self.cluster.control_plane().start_api_server()?;
        let renewed = || -> anyhow::Result<Value> {
            let all = ["get", "leases", "-n", "kube-node-lease", "-o", "json"];
            Ok(serde_json::from_str(&self.kubectl(&all)?)?)
        };
        let times = |it: &Value| -> Vec<String> {
            let items = it["items"].as_array().into_iter().flatten();
            items.map(|it| it["spec"]["renewTime"].to_string()).collect()
        };
        let before = self.until("leases of nodes", renewed, |it| !times(it).is_empty())?;
        self.until("nodes to be heard of", renewed, |it| {
            times(it).iter().zip(times(&before)).all(|(now, before)| *now != before)
        })?;
        self.cluster.wait_ready()?;
        let ready = ["wait", "--for=condition=Ready", "pod", "--all", "-n", NAMESPACE];
        self.kubectl(&ready).map(|_| ())
    }

    /// What the controller on the host tells about itself.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        let said = self.edge.host.output(PROGRAM, &["status", "--output", "json"], "")?;
        serde_json::from_str(&said.stdout).with_context(|| said.stderr)
    }

    /// The rules in the kernel of the host, without counters.
    pub(crate) fn rules(&self) -> anyhow::Result<String> {
        self.edge.host.run("nft", &["-s", "list", "table", "inet", "portcullis"])
    }

    /// An object, `KIND/NAME`, as it is stored.
    pub(crate) fn stored(&self, object: &str) -> anyhow::Result<Value> {
        let text = self.kubectl(&["get", object, "-n", NAMESPACE, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Changes the annotation `portcullis.dev/host-ports`.
    pub(crate) fn annotate(&self, service: &str, value: &str) -> anyhow::Result<()> {
        let value = format!("portcullis.dev/host-ports={value}");
        let command = ["annotate", "--overwrite", "-n", NAMESPACE, "service", service, &value];
        self.kubectl(&command).map(|_| ())
    }

    pub(crate) fn delete_service(&self, name: &str) -> anyhow::Result<()> {
        self.kubectl(&["delete", "service", "-n", NAMESPACE, name]).map(|_| ())
    }

    /// One connection from a client to this port of the host.
    pub(crate) fn dial(
        &self,
        client: &Machine,
        to: SocketAddr,
        protocol: Protocol,
    ) -> anyhow::Result<Outcome> {
        client.probe(Probe::new(to, protocol).within(SILENCE))
    }

    /// Connects from this client until somebody answers.
    pub(crate) fn reached_from(
        &self,
        client: &Machine,
        to: SocketAddr,
        protocol: Protocol,
    ) -> anyhow::Result<Answer> {
        let what = format!("{to}/{protocol} answers {}", client.name());
        wait::until_ok(&what, PATIENCE, || Ok(self.dial(client, to, protocol)?.answer().cloned()))
    }

    /// Connects from outside until nobody answers.
    pub(crate) fn closed(&self, port: u16) -> anyhow::Result<()> {
        wait::until_ok(&format!("{port} is closed"), PATIENCE, || {
            let outcome = self.dial(&self.edge.outside, at(HOST, port), Protocol::Tcp)?;
            Ok(outcome.answer().is_none().then_some(()))
        })
    }

    /// Connects from outside until each of the last eight connections was answered and those who
    /// answered are exactly these.
    pub(crate) fn answered_by(&self, port: u16, servers: &[&str]) -> anyhow::Result<()> {
        let wanted: BTreeSet<_> = servers.iter().map(|it| Some((*it).to_owned())).collect();
        wait::until_ok(&format!("{port} is answered by {servers:?}"), PATIENCE, || {
            let mut seen = BTreeSet::new();
            for _ in 0..8 {
                let outcome = self.dial(&self.edge.outside, at(HOST, port), Protocol::Tcp)?;
                seen.insert(outcome.server().map(str::to_owned));
            }
            Ok((seen == wanted).then_some(()))
        })
    }

    /// Connects from outside to the pods every 10 ms until it is stopped.
    pub(crate) fn prober(&self) -> anyhow::Result<Prober> {
        self.answered_by(STRAIGHT, &["node-1", "node-2"])?;
        let probe = Probe::new(at(HOST, STRAIGHT), Protocol::Tcp);
        self.edge.outside.prober(probe, Duration::from_millis(10))
    }

    /// Asks until the answer satisfies, and returns it; a failure to ask is no answer.
    pub(crate) fn until(
        &self,
        what: &str,
        mut ask: impl FnMut() -> anyhow::Result<Value>,
        satisfies: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let mut last = Err(anyhow::anyhow!("never asked"));
        let found = wait::until(what, PATIENCE, || {
            last = ask();
            last.as_ref().ok().filter(|it| satisfies(it)).cloned()
        });
        found.with_context(|| format!("in the end there was {last:#?}"))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // What cannot be removed is noticed by the next test, which says more about it than this.
        for kind in ["services", "deployments"] {
            let _left = self.kubectl(&["delete", kind, "--all", "-n", NAMESPACE]);
        }
        // Not defined before the first test of publishing.
        let _left = self.kubectl(&["delete", "tcproutes,gateways", "--all", "-n", NAMESPACE]);
        let _left = self.kubectl(&["delete", "hosts", "--all"]);
        let _left = self.edge.host.run(PROGRAM, &["cleanup"]);
    }
}

/// A running controller. Dropping it kills it.
pub(crate) struct Controller {
    pub(crate) daemon: Daemon,
}

impl Controller {
    /// the shipped role was enough for everything so far.
    #[track_caller]
    pub(crate) fn nothing_was_forbidden(&self) {
        let refusals = self.refusals();
        assert!(refusals.is_empty(), "forbidden to the shipped role: {refusals:#?}");
    }

    /// The lines of the log in which the API server refuses something.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let log = self.daemon.log();
        let refused = |line: &&str| {
            let line = line.to_lowercase();
            line.contains(" 403 ") || line.contains("forbidden")
        };
        log.lines().filter(refused).map(str::to_owned).collect()
    }
}

/// Fails unless every connection was answered.
#[track_caller]
pub(crate) fn none_failed(attempts: &[Attempt]) {
    let failed: Vec<_> = attempts.iter().filter(|it| it.outcome.server().is_none()).collect();
    assert!(!attempts.is_empty(), "nobody tried");
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), attempts.len());
}

/// The condition of this type, or null.
pub(crate) fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|it| it.iter().find(|it| it["type"] == type_));
    found.unwrap_or(&Value::Null)
}

/// Fails unless the text has this in it.
#[track_caller]
pub(crate) fn contains(text: &Value, part: &str) {
    let text = text.as_str().unwrap_or_default();
    assert!(text.contains(part), "no {part:?} in {text:?}");
}

/// For errors of preconditions that tests rely on.
pub(crate) fn sure(condition: bool, what: &str) -> anyhow::Result<()> {
    ensure!(condition, "{what}");
    Ok(())
}
