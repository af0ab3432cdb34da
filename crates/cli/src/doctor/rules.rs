//! What others do on this machine that gets in our way: drop policies, old rules.

use command::{Command, Program};
use host::{Executor as _, Local};
use serde_json::Value;

use super::Check;

const AREA: &str = "this machine";

/// Looks at forward policies and at rules of Epok.
pub(super) async fn look() -> Vec<Check> {
    let mut checks = vec![forward_policy().await];
    checks.extend(epok().await);
    checks
}

async fn forward_policy() -> Check {
    const NAME: &str = "forward policy";
    let command = Command::new(Program::Nft).args(["-j", "list", "chains"]);
    let listing = match Local::new().run(&command).await {
        Ok(output) if output.succeeded() => output.stdout,
        Ok(output) => {
            let said = output.stderr.lines().next().unwrap_or_default().trim().to_owned();
            return Check::warning(AREA, NAME, said, "run this as root to have it looked at");
        }
        Err(error) => {
            return Check::warning(AREA, NAME, error.to_string(), "look with `iptables-save`");
        }
    };
    let dropping = dropping(&listing);
    if dropping.is_empty() {
        return Check::ok(AREA, NAME, "no chain of nftables drops forwarded packets by policy");
    }
    Check::warning(
        AREA,
        NAME,
        format!("{} drops forwarded packets by policy", dropping.join(", ")),
        "where it is iptables' FORWARD chain, set acceptForwarded: true on the Host (or \
         --accept-forwarded); any other chain needs a rule of its own that accepts packets to the \
         nodes, for example `ct status dnat accept`",
    )
}

/// The base chains at the forward hook whose policy is to drop.
fn dropping(listing: &str) -> Vec<String> {
    let Ok(listing) = serde_json::from_str::<Value>(listing) else { return Vec::new() };
    let chains = listing["nftables"].as_array().into_iter().flatten().map(|it| &it["chain"]);
    chains
        .filter(|it| it["hook"] == "forward" && it["policy"] == "drop")
        .map(|it| {
            let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("family"), text("table"), text("name"))
        })
        .collect()
}

async fn epok() -> Option<Check> {
    let command = Command::new(Program::IptablesSave).args(["-t", "nat"]);
    let listing = Local::new().run(&command).await.ok()?.stdout;
    let rules = listing.lines().filter(|it| it.contains("epok_rule_id")).count();
    (rules > 0).then(|| {
        Check::warning(
            AREA,
            "rules of Epok",
            format!("{rules} rules"),
            "stop Epok and take them over without a gap: portcullis migrate epok --help",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drop_policies_at_the_forward_hook_count() {
        let listing = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "x", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "inet", "table": "x", "name": "regular"}}
        ]}"#;
        assert_eq!(dropping(listing), ["ip filter FORWARD"]);
        assert!(dropping("not JSON").is_empty());
    }
}
