//! Whether remote hosts can be reached and do what we need, and whether what is asked of all hosts
//! can be done there.

use api::host::{Executor as Way, HostSettings};
use host::{Blame, ExecuteError};
use kube::Client;
use planner::finding::Severity;
use planner::forward::forward_plan;
use planner::host_view::HostView;

use super::Check;
use crate::ending::Result;
use crate::objects::{ObjectOptions, Objects};
use crate::{host_choice, plan, ssh_scan};

/// Looks at every Host among the objects.
pub(super) async fn look(options: &ObjectOptions) -> Result<Vec<Check>> {
    let objects = options.read().await?;
    let mut checks = Vec::new();
    for problem in &objects.problems {
        let remedy = problem.remedy.clone();
        let found = format!("{}: {}", problem.place, problem.problem);
        checks.push(match problem.severity {
            Severity::Error => Check::failure("objects", "readable", found, remedy),
            Severity::Warning => Check::warning("objects", "readable", found, remedy),
            Severity::Note => Check::ok("objects", "readable", found),
        });
    }
    let view = objects.view();
    for name in view.host_names().map(str::to_owned).collect::<Vec<_>>() {
        let area = format!("Host {name}");
        match plan::settings(&view, &name) {
            Ok(settings) => checks.extend(host(&area, &settings, &objects).await),
            Err(error) => {
                let remedy = "correct the Host object";
                checks.push(Check::failure(&area, "object", format!("{error:#}"), remedy));
            }
        }
    }
    Ok(checks)
}

async fn host(area: &str, settings: &HostSettings, objects: &Objects) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Way::Ssh(ssh) = &settings.executor {
        let (check, good) =
            host_key(area, ssh.address.as_str(), ssh.port.get(), ssh.host_key.as_str()).await;
        checks.push(check);
        if !good {
            return checks;
        }
    }
    match facts(settings, objects.client.as_ref()).await {
        Ok(facts) => {
            checks.push(Check::ok(area, "listings", "the host shows its rules and addresses"));
            checks.extend(findings(area, settings, objects, &facts));
        }
        Err(error) => {
            let remedy = match error.downcast_ref::<ExecuteError>().map(ExecuteError::blame) {
                Some(Blame::Configuration) => "correct the Host's executor as the message says",
                Some(Blame::Network) => "see that the host answers at this address and port",
                Some(Blame::Host | Blame::Program) | None => "do what the message says on the host",
            };
            checks.push(Check::failure(area, "listings", format!("{error:#}"), remedy));
        }
    }
    checks
}

async fn host_key(area: &str, address: &str, port: u16, pinned: &str) -> (Check, bool) {
    const NAME: &str = "host key";
    match ssh_scan::ed25519_key(address, port).await {
        Ok(key) => {
            let found = key.to_openssh().unwrap_or_default();
            let same = found.split_whitespace().take(2).eq(pinned.split_whitespace().take(2));
            if same {
                return (
                    Check::ok(area, NAME, format!("{address}:{port} has the pinned key")),
                    true,
                );
            }
            let remedy = "if the host was reinstalled, pin the new key after a look at \
                          /etc/ssh/ssh_host_ed25519_key.pub there; otherwise somebody sits in between";
            let found = format!("{address}:{port} has another key than the pinned one: {found}");
            (Check::failure(area, NAME, found, remedy), false)
        }
        Err(error) => {
            let remedy = "see that sshd runs there, has an Ed25519 host key, and is reachable";
            let found = format!("{address}:{port}: {error:#}");
            (Check::failure(area, NAME, found, remedy), false)
        }
    }
}

async fn facts(settings: &HostSettings, client: Option<&Client>) -> Result<HostView> {
    let choice = host_choice::HostChoice { live: true, ..Default::default() };
    Ok(choice.facts(settings, client).await?.view)
}

/// What planning with the host's own facts finds: listeners in the way, missing interfaces.
fn findings(
    area: &str,
    settings: &HostSettings,
    objects: &Objects,
    facts: &HostView,
) -> Vec<Check> {
    const NAME: &str = "plan";
    match forward_plan(&objects.view(), settings.name.as_str(), facts) {
        Ok(desired) if desired.findings.is_empty() => {
            let ports = desired.forwarding.forwards.len();
            vec![Check::ok(area, NAME, format!("{ports} host ports, nothing in their way"))]
        }
        Ok(desired) => {
            let check = |it: planner::finding::Finding| {
                let found = format!("{}: {}: {:?}: {}", it.object, it.field, it.value, it.problem);
                match it.severity {
                    Severity::Error => Check::failure(area, NAME, found, it.remedy),
                    Severity::Warning => Check::warning(area, NAME, found, it.remedy),
                    Severity::Note => Check::ok(area, NAME, found),
                }
            };
            desired.findings.into_iter().map(check).collect()
        }
        Err(error) => {
            vec![Check::failure(area, NAME, error.to_string(), "correct the objects as it says")]
        }
    }
}
