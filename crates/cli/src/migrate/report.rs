//! What maps, what differs, what is refused.

use serde::Serialize;

use crate::ending::Result;
use crate::print;

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// What means the same with us.
    pub(super) maps: Vec<String>,
    /// What works, but not in the same way.
    pub(super) differs: Vec<String>,
    /// What is refused, why, and what to do.
    pub(super) rejected: Vec<String>,
    /// The Host object that the options mean, as a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<serde_json::Value>,
    /// What was done, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) taken_over: Option<crate::take_over::Done>,
}

/// What differs for everybody who comes from Epok.
pub(super) const DIFFERENCES: [&str; 9] = [
    "without an external interface, only packets to the host's own addresses are forwarded; Epok \
     also caught traffic that merely passed through the host on that port",
    "both families are forwarded where nodes have both; Epok knew IPv4 only",
    "an annotation with one wrong part is refused whole, with an Event that names the part; Epok \
     read an unknown third part (`:UDP`, `:sctp`) as TCP",
    "allow-range is a list of addresses and ranges; anything else is refused, host names included",
    "two objects that claim one host port: the older one wins and the other gets an Event; with \
     Epok the order of rules decided",
    "new connections are spread evenly on every interface; Epok lost a share where internal and \
     external Pods shared a port",
    "nodes with the label node.kubernetes.io/exclude-from-external-load-balancers are left out, \
     and externalTrafficPolicy: Local is obeyed",
    "addresses of the external interface are followed when they change; Epok read them once",
    "an SSH host must prove the key that is pinned; Epok trusted any",
];

/// Prints the report for people.
pub(super) fn print(report: &Report) -> Result<()> {
    section("maps (means the same)", &report.maps)?;
    section("differs (works, but not in the same way)", &report.differs)?;
    section("rejected (has no effect until it is corrected)", &report.rejected)?;
    if let Some(done) = &report.taken_over {
        print::line(format_args!(
            "taken over: {} steps of our own, then {} rules of Epok's removed in one transaction",
            done.steps.len(),
            done.removed
        ))?;
        for kept in &done.kept {
            print::line(format_args!("  left alone: {kept}"))?;
        }
    }
    Ok(())
}

fn section(title: &str, lines: &[String]) -> Result<()> {
    print::line(
        format_args!("{title}: {}", if lines.is_empty() { "nothing" } else { "" })
            .to_string()
            .trim_end(),
    )?;
    for line in lines {
        print::line(format_args!("  - {line}"))?;
    }
    Ok(())
}
