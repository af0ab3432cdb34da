//! Taking a host over from Epok without a gap.
//!
//! Our rules come first; Epok's, which stand before ours and win while they are there, are removed
//! afterwards, in one transaction. A rule of Epok's whose object we cannot read stays: closing a
//! port that still works is not ours to decide.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use api::host::HostSettings;
use api::object::{ObjectKind, ObjectRef};
use firewall::epok::{self, Left, Rule};
use host::Executor;
use planner::finding::Severity;
use planner::forward::HostDesired;
use serde::Serialize;

use crate::ending::Result;
use crate::{host_choice, reach};

/// What is to become of the rules that Epok left.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// To be removed: our rules do the same, or no object asks for it any more.
    pub(crate) removable: Left,
    /// Host ports that no object asks for any more, with where they led.
    pub(crate) unasked: BTreeSet<String>,
    /// To be left alone, with the reason.
    pub(crate) kept: BTreeMap<String, String>,
}

/// What was done to a host.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Done {
    /// What changed in our own rules.
    pub(crate) steps: Vec<String>,
    /// How many rules of Epok's were removed.
    pub(crate) removed: usize,
    /// What was left alone, and why.
    pub(crate) kept: Vec<String>,
}

/// Decides what is to become of each rule.
pub(crate) fn judge(
    left: Left,
    desired: &HostDesired,
    unreadable: &BTreeSet<ObjectRef>,
) -> Verdict {
    let ports: BTreeSet<String> = desired
        .forwarding
        .forwards
        .keys()
        .map(|it| format!("{}/{}", it.protocol, it.port))
        .collect();
    let mut broken: BTreeMap<&ObjectRef, String> = BTreeMap::new();
    for object in desired.unreadable.iter().chain(unreadable) {
        broken.insert(object, "the object cannot be read".to_owned());
    }
    for finding in desired.findings.iter().filter(|it| it.severity == Severity::Error) {
        broken.entry(&finding.object).or_insert_with(|| finding.to_string());
    }

    let mut verdict = Verdict::default();
    for rule in left.rules {
        let covered = ports.contains(&rule.port);
        let reason = origin(&rule).and_then(|it| broken.get(&it).cloned());
        match reason {
            Some(reason) if !covered => {
                verdict.kept.insert(describe(&rule), reason);
            }
            Some(_) | None => {
                if !covered {
                    verdict.unasked.insert(describe(&rule));
                }
                verdict.removable.rules.push(rule);
            }
        }
    }
    for line in left.unclear {
        let reason = "the rule is not quite as Epok writes it; look at it and remove it by hand";
        verdict.kept.insert(line, reason.to_owned());
    }
    verdict
}

/// Puts our rules in force and then removes Epok's.
///
/// # Errors
///
/// Fails with Epok's rules untouched when ours are not in force.
pub(crate) async fn run(
    executor: &mut dyn Executor,
    settings: &HostSettings,
    desired: &HostDesired,
    unreadable: &BTreeSet<ObjectRef>,
) -> Result<Done> {
    let (backend, options) = (host_choice::backend(settings), host_choice::options(settings));
    let keep = desired.unreadable.union(unreadable).cloned().collect();
    let ruleset = backend.render(&desired.forwarding);
    let plan =
        backend.plan(&ruleset, &host_choice::observe(executor, backend, options).await?, &keep);
    for command in plan.commands() {
        reach::succeed(executor, &command).await?;
    }
    // What the kernel has is looked at, not what we wish it had.
    let observed = host_choice::observe(executor, backend, options).await?;
    ensure!(
        backend.plan(&ruleset, &observed, &keep).is_empty(),
        "our rules are not in force after they were applied; Epok's rules were not touched"
    );

    let verdict = judge(find(executor).await?, desired, unreadable);
    if let Some(removal) = verdict.removable.removal() {
        reach::succeed(executor, &removal).await?;
    }
    let kept = verdict.kept.iter().map(|(rule, reason)| format!("{rule}: {reason}"));
    Ok(Done {
        steps: plan.steps().map(str::to_owned).collect(),
        removed: verdict.removable.rules.len(),
        kept: kept.collect(),
    })
}

/// Reads what Epok left on a host.
pub(crate) async fn find(executor: &mut dyn Executor) -> Result<Left> {
    let listing = reach::succeed(executor, &epok::listing()).await?;
    Ok(epok::find(&listing.stdout))
}

/// `tcp/443 -> 10.0.0.1:30443 (service: web/blog; node: a)`.
pub(crate) fn describe(rule: &Rule) -> String {
    format!("{} -> {} ({})", rule.port, rule.target, rule.origin)
}

/// The object that Epok made a rule for, as far as its comment tells.
fn origin(rule: &Rule) -> Option<ObjectRef> {
    if let Some(rest) = rule.origin.strip_prefix("service: ") {
        let (namespace, name) = rest.split(';').next()?.trim().split_once('/')?;
        return Some(ObjectRef::namespaced(ObjectKind::Service, namespace, name));
    }
    let rest = rule.origin.strip_prefix("pod: ")?;
    let (name, namespace) = rest.split_once("; namespace: ")?;
    Some(ObjectRef::namespaced(ObjectKind::Pod, namespace.trim(), name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "*nat
-A PREROUTING -i eth0 -p tcp -m tcp --dport 443 -m state --state NEW -m comment --comment \"service: web/blog; node: a; epok_rule_id: 0123\" -j DNAT --to-destination 10.0.0.1:30443
-A PREROUTING -i eth0 -p tcp -m tcp --dport 22 -m state --state NEW -m comment --comment \"service: web/broken; node: a; epok_rule_id: 4567\" -j DNAT --to-destination 10.0.0.1:30022
-A PREROUTING -i eth0 -p udp -m udp --dport 53 -m comment --comment \"pod: dns; namespace: web; epok_rule_id: 89ab\" -j DNAT --to-destination 10.1.0.1:53
COMMIT
";

    #[test]
    fn a_port_whose_object_cannot_be_read_stays_open() {
        let desired = HostDesired::default();
        let broken = ObjectRef::namespaced(ObjectKind::Service, "web", "broken");
        let verdict = judge(epok::find(LISTING), &desired, &BTreeSet::from([broken]));
        let kept: Vec<_> = verdict.kept.into_iter().collect();
        assert_eq!(
            kept,
            [(
                "tcp/22 -> 10.0.0.1:30022 (service: web/broken; node: a)".to_owned(),
                "the object cannot be read".to_owned()
            )]
        );
        assert_eq!(verdict.removable.rules.len(), 2);
        assert_eq!(
            verdict.unasked.into_iter().collect::<Vec<_>>(),
            [
                "tcp/443 -> 10.0.0.1:30443 (service: web/blog; node: a)",
                "udp/53 -> 10.1.0.1:53 (pod: dns; namespace: web)"
            ]
        );
    }
}
