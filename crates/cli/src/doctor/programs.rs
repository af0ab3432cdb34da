//! Which programs this machine has, and whether we may use them.

use api::host::{Host, HostSpec};
use command::{Command, Program};
use firewall::Backend;
use host::{Executor as _, Local};
use planner::cluster_view::{Change, ClusterView, Object};
use planner::forward::forward_plan;
use planner::host_view::HostView;

use super::Check;

const AREA: &str = "this machine";

/// The oldest nft whose maps, sets and transactions are known to work with our rules.
const OLDEST_NFT: [u32; 3] = [1, 0, 2];

/// Looks at nft, iptables and conntrack.
pub(super) async fn look() -> Vec<Check> {
    vec![nft().await, ruleset().await, iptables().await, conntrack().await]
}

async fn version(program: Program) -> Result<String, String> {
    let command = Command::new(program).arg("--version");
    match Local::new().run(&command).await {
        Ok(output) if output.succeeded() => {
            let text = if output.stdout.trim().is_empty() { output.stderr } else { output.stdout };
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        }
        Ok(output) => Err(output.stderr.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

async fn nft() -> Check {
    const NAME: &str = "nft";
    match version(Program::Nft).await {
        Ok(found) => match numbers(&found) {
            Some(version) if version < OLDEST_NFT => Check::warning(
                AREA,
                NAME,
                format!("{found} is older than 1.0.2"),
                "update nftables, or set backend: iptables on the Host",
            ),
            Some(_) => Check::ok(AREA, NAME, found),
            None => Check::warning(
                AREA,
                NAME,
                format!("{found:?} names no version"),
                "see that `nft --version` prints 1.0.2 or newer",
            ),
        },
        Err(error) => Check::failure(
            AREA,
            NAME,
            error,
            "apt install nftables, or set backend: iptables on the Host",
        ),
    }
}

/// The first number of the form `1.0.6` in what a program says of itself.
fn numbers(text: &str) -> Option<[u32; 3]> {
    text.split(|it: char| !it.is_ascii_digit() && it != '.').find_map(|word| {
        let mut parts = word.split('.').map(|it| it.parse().ok());
        let version = [parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)];
        Some(version)
    })
}

/// Gives the kernel a ruleset like ours and takes it back before it counts.
async fn ruleset() -> Check {
    const NAME: &str = "nftables in the kernel";
    let Some(text) = sample() else {
        return Check::failure(AREA, NAME, "the sample cannot be planned", "please report this");
    };
    let command = Command::new(Program::Nft).args(["--check", "-f", "-"]).stdin(text);
    match Local::new().run(&command).await {
        Ok(output) if output.succeeded() => {
            Check::ok(AREA, NAME, "the kernel accepts rules like ours")
        }
        Ok(output) => {
            let said = output.stderr.lines().next().unwrap_or_default().trim().to_owned();
            let remedy = if said.contains("not permitted") {
                "run this as root or with CAP_NET_ADMIN"
            } else {
                "load the modules nf_tables, nft_chain_nat, nft_fib_inet and nft_numgen, or use a \
                 kernel that has them"
            };
            Check::failure(AREA, NAME, said, remedy)
        }
        Err(error) => Check::failure(AREA, NAME, error.to_string(), "apt install nftables"),
    }
}

/// A ruleset that uses everything we use of nftables. Accepting forwarded packets is left out: that
/// is a rule of iptables with both backends.
fn sample() -> Option<String> {
    let manifests = include_str!("sample.yaml");
    let (changes, _) = cluster::manifests::read_text(std::path::Path::new("sample"), manifests);
    let mut view = ClusterView::default();
    for change in changes {
        view.change(change);
    }
    let spec =
        HostSpec { interfaces: vec!["lo".to_owned()], masquerade: true, ..HostSpec::default() };
    view.change(Change::Applied(Object::Host(Box::new(Host::new("sample", spec)))));
    let desired = forward_plan(&view, "sample", &HostView::default()).ok()?;
    Some(Backend::Nftables.render(&desired.forwarding).text())
}

async fn iptables() -> Check {
    const NAME: &str = "iptables";
    match version(Program::Iptables).await {
        Ok(found) if found.contains("legacy") => Check::warning(
            AREA,
            NAME,
            format!("{found}: writes the old tables, which nft does not show"),
            "fine alone; beside programs that use nftables, run `update-alternatives --set \
             iptables /usr/sbin/iptables-nft`",
        ),
        Ok(found) => Check::ok(AREA, NAME, found),
        Err(_) => Check::ok(AREA, NAME, "not installed, and only needed for backend: iptables"),
    }
}

async fn conntrack() -> Check {
    const NAME: &str = "conntrack";
    match version(Program::Conntrack).await {
        Ok(found) => Check::ok(AREA, NAME, found),
        Err(error) => Check::warning(
            AREA,
            NAME,
            format!("{error}; UDP flows keep going to targets that are gone until they time out"),
            "apt install conntrack",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(numbers("nftables v1.0.6 (Lester Gooch #5)"), Some([1, 0, 6]));
        assert_eq!(numbers("nftables v1.1 (x)"), Some([1, 1, 0]));
        assert_eq!(numbers("no version"), None);
    }

    #[test]
    fn the_sample_has_something_of_everything() {
        let sample = sample().expect("it can be planned");
        for part in ["numgen", "jhash", "masquerade", "fib", "allow-"] {
            assert!(sample.contains(part), "no {part} in\n{sample}");
        }
    }
}
