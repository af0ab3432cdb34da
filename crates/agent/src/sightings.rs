//! What each agent sees of gateways, told to the one that writes statuses: that one may have no link
//! to a gateway that others are linked to.
//!
//! Every agent keeps a Lease with its name, with what it sees in an annotation; it renews it all the
//! time, changes it when something has changed, and removes it when it ends. The leader looks there
//! while it misses a link itself, and at no other time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use planner::publish::{GatewayObserved, Reachability};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tunnel::trust::NAMESPACE;
use tunnel_proto::control::{Decoded, decode_bare, encode_bare};

use crate::board::Board;

/// How often an agent says that it is still there.
const RENEW: Duration = Duration::from_secs(10);

/// What was not renewed for so long counts no more.
const STALE: Duration = Duration::from_secs(25);

/// What nobody has renewed for so long belongs to an agent that could not say goodbye.
const FORGOTTEN: jiff::SignedDuration = jiff::SignedDuration::from_secs(3600);

/// How long changes are gathered before they are told.
const GATHER: Duration = Duration::from_millis(200);

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Annotations together may have 256 KiB (validation of ObjectMeta).
const LONGEST: usize = 200 << 10;

const MANAGER: &str = "portcullis-agent";
const LINKS: &str = "portcullis.dev/links";
const LABEL: &str = "portcullis.dev/agent";

/// What an agent sees of a gateway that it is linked to.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sighting {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    reported_at: Option<Timestamp>,
    /// Whether its public ports answer, the failing hop, and what was tried.
    #[serde(default)]
    reachable: Option<(bool, String, String)>,
    /// Its report, as it came over the tunnel (CBOR).
    #[serde(default)]
    report: Option<ByteString>,
}

/// Tells what this agent sees until it ends.
pub(crate) async fn tell(
    client: Client,
    agent: String,
    board: Arc<Board>,
    mut ending: watch::Receiver<bool>,
) {
    let leases = Api::<Lease>::namespaced(client, NAMESPACE);
    let name = lease_name(&agent);
    let mut changes = board.changes();
    while !*ending.borrow_and_update() {
        changes.borrow_and_update();
        let observed = board.observed();
        let told = gist(&observed);
        let lease = lease(&agent, &observed, Timestamp::now());
        let parameters = PatchParams::apply(MANAGER).force();
        if let Err(error) = leases.patch(&name, &parameters, &Patch::Apply(&lease)).await {
            tracing::debug!(%error, "cannot tell other agents what is seen here");
        }
        let news = async {
            while changes.changed().await.is_ok() {
                if gist(&board.observed()) != told {
                    return sleep(GATHER).await;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            () = sleep(RENEW) => {}
            () = news => {}
            ended = ending.changed() => if ended.is_err() { break },
        }
    }
    let _gone_or_not = timeout(PATIENCE, leases.delete(&name, &DeleteParams::default())).await;
}

/// What is worth telling before its time: everything but figures.
fn gist(observed: &BTreeMap<String, GatewayObserved>) -> Value {
    let gist = observed.iter().map(|(name, it)| {
        let ports = it.report.iter().flat_map(|it| &it.ports);
        let ports = ports.map(|it| format!("{:?}", (it.address, it.port, it.protocol, &it.state)));
        let reachable = it.reachable.as_ref().map(|it| (it.reachable, it.reason.as_str()));
        let quota = it.report.as_ref().and_then(|it| it.quota);
        let quota = quota.map(|it| format!("{:?}", (it.standing(), it.limit)));
        json!([name, it.connected, ports.collect::<Vec<_>>(), reachable, quota])
    });
    gist.collect()
}

fn lease_name(agent: &str) -> String {
    format!("portcullis-agent.{agent}")
}

fn lease(agent: &str, observed: &BTreeMap<String, GatewayObserved>, now: Timestamp) -> Value {
    let text = |with_reports: bool| {
        let links: BTreeMap<_, _> = observed
            .iter()
            .filter(|(_, it)| it.connected)
            .map(|(name, it)| (name, Sighting::of(it, with_reports)))
            .collect();
        json!(links).to_string()
    };
    let links = Some(text(true)).filter(|it| it.len() <= LONGEST);
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": lease_name(agent),
            "namespace": NAMESPACE,
            "labels": { LABEL: "" },
            "annotations": { LINKS: links.unwrap_or_else(|| text(false)) },
        },
        "spec": {
            "holderIdentity": agent,
            "leaseDurationSeconds": STALE.as_secs(),
            "renewTime": format!("{now:.6}"),
        },
    })
}

impl Sighting {
    fn of(observed: &GatewayObserved, with_report: bool) -> Self {
        let reachable = observed.reachable.clone();
        let report = observed.report.as_ref().filter(|_| with_report);
        Self {
            version: observed.version.clone(),
            reported_at: observed.reported_at,
            reachable: reachable.map(|it| (it.reachable, it.reason, it.message)),
            report: report.map(|it| ByteString(encode_bare(it))),
        }
    }

    fn observed(self) -> GatewayObserved {
        let report = self.report.and_then(|it| match decode_bare(&it.0) {
            Ok(Decoded::Message(report)) => Some(report),
            Ok(Decoded::Unknown(_)) | Err(_) => None,
        });
        GatewayObserved {
            connected: true,
            report,
            reported_at: self.reported_at,
            adopted: Some(true),
            reachable: self.reachable.map(|(reachable, reason, message)| Reachability {
                reachable,
                reason,
                message,
            }),
            version: self.version,
            last_error: None,
        }
    }
}

/// What other agents see.
#[derive(Debug)]
pub(crate) struct Others {
    leases: Option<Api<Lease>>,
    agent: String,
    /// When each was last seen to be renewed, by this machine's clock: others' may differ.
    renewed: BTreeMap<String, (String, Instant)>,
}

impl Others {
    /// Without a client nobody else is there.
    pub(crate) fn new(client: Option<Client>, agent: &str) -> Self {
        let leases = client.map(|it| Api::namespaced(it, NAMESPACE));
        Self { leases, agent: agent.to_owned(), renewed: BTreeMap::new() }
    }

    /// What is known of `gateways`: what this agent sees, and of gateways that it has no link to what
    /// another one sees. Says whether that should be looked at again soon.
    pub(crate) async fn complete<'a>(
        &mut self,
        own: BTreeMap<String, GatewayObserved>,
        gateways: impl Iterator<Item = &'a String>,
    ) -> (BTreeMap<String, GatewayObserved>, bool) {
        let linked = |name: &String| own.get(name).is_some_and(|it| it.connected);
        let missing: Vec<_> = gateways.filter(|it| !linked(it)).collect();
        let Some(leases) = self.leases.as_ref().filter(|_| !missing.is_empty()) else {
            return (own, false);
        };
        let listed = timeout(PATIENCE, leases.list(&ListParams::default().labels(LABEL))).await;
        let listed = match listed {
            Ok(Ok(listed)) => listed.items,
            Ok(Err(error)) => {
                tracing::debug!(%error, "what other agents see is not known");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let mut all = own;
        for mut seen in self.current(listed, Instant::now()) {
            for name in &missing {
                let Some(found) = seen.remove(*name) else { continue };
                let newest = all.get(*name).filter(|it| it.connected);
                if newest.is_none_or(|it| it.reported_at < found.reported_at) {
                    all.insert((*name).clone(), found.observed());
                }
            }
        }
        (all, true)
    }

    /// What agents say that are still there.
    fn current(&mut self, leases: Vec<Lease>, now: Instant) -> Vec<BTreeMap<String, Sighting>> {
        let mut renewed = BTreeMap::new();
        let mut current = Vec::new();
        for lease in leases {
            let name = lease.name_any();
            let time = lease.spec.as_ref().and_then(|it| it.renew_time.as_ref());
            let told = time.map(|it| it.0.to_string()).unwrap_or_default();
            let at = self.renewed.get(&name).filter(|it| it.0 == told).map_or(now, |it| it.1);
            if time.is_some_and(|it| Timestamp::now().duration_since(it.0) > FORGOTTEN) {
                self.forget(&name);
            } else if at + STALE > now && name != lease_name(&self.agent) {
                let links = lease.annotations().get(LINKS);
                current.extend(links.and_then(|it| serde_json::from_str(it).ok()));
            }
            renewed.insert(name, (told, at));
        }
        self.renewed = renewed;
        current
    }

    fn forget(&self, name: &str) {
        if let Some(leases) = self.leases.clone() {
            let name = name.to_owned();
            tokio::spawn(async move {
                let _another_may_have = leases.delete(&name, &DeleteParams::default()).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tunnel_proto::message::Report;

    use super::*;

    fn seen(revision: u64) -> BTreeMap<String, GatewayObserved> {
        let observed = GatewayObserved {
            connected: true,
            report: Some(Report { revision, ..Report::default() }),
            reported_at: Timestamp::from_second(1_800_000_000).ok(),
            adopted: Some(true),
            reachable: Some(Reachability {
                reachable: false,
                reason: "Filtered".to_owned(),
                message: "no answer".to_owned(),
            }),
            version: Some("0.1.0".to_owned()),
            last_error: None,
        };
        let lost = GatewayObserved::default();
        [("fra1".to_owned(), observed), ("ams1".to_owned(), lost)].into()
    }

    fn told(agent: &str, at: i64) -> Lease {
        let now = Timestamp::from_second(at).expect("a time");
        serde_json::from_value(lease(agent, &seen(7), now)).expect("a Lease")
    }

    #[tokio::test]
    async fn what_an_agent_tells_of_its_links_is_what_it_sees() {
        let mut others = Others::new(None, "agent-1");
        let now = Timestamp::now().as_second();
        let mut found = others.current(vec![told("agent-0", now)], Instant::now());
        let mut found = found.pop().expect("one other");
        assert!(!found.contains_key("ams1"), "there is nothing to tell without a link");
        let fra1 = found.remove("fra1").expect("told").observed();
        assert_eq!(Some(&fra1), seen(7).get("fra1"));
        let own = others.current(vec![told("agent-1", now)], Instant::now());
        assert!(own.is_empty(), "its own word adds nothing");
    }

    #[tokio::test]
    async fn an_agent_that_renews_its_word_no_more_counts_no_more() {
        let mut others = Others::new(None, "agent-1");
        let (begun, now) = (Instant::now(), Timestamp::now().as_second());
        let look = |others: &mut Others, renewed: i64, after: u64| {
            let at = begun + Duration::from_secs(after);
            others.current(vec![told("agent-0", renewed)], at).len()
        };
        assert_eq!(look(&mut others, now - 600, 0), 1, "clocks may differ");
        assert_eq!(look(&mut others, now - 600, 24), 1);
        assert_eq!(look(&mut others, now - 600, 26), 0);
        assert_eq!(look(&mut others, now - 590, 27), 1, "it is back");
        assert_eq!(look(&mut others, now - 4000, 28), 0, "nobody remembers it");
    }
}
