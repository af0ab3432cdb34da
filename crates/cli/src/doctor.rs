//! `portcullis doctor`: what a machine, its remote hosts and the cluster lack, and what to do.
//!
//! It looks and changes nothing. Every check says what was found; one that is not good says what
//! to do.

mod cluster;
mod kernel;
mod programs;
mod remote;
mod rules;
mod tunnels;

use std::fmt;
use std::net::SocketAddr;

use clap::Args;
use serde::Serialize;

use crate::agent_run::LISTEN;
use crate::arguments::Output;
use crate::ending::{Ending, Result};
use crate::objects::ObjectOptions;
use crate::print;

const EXAMPLES: &str = "\
Examples:
  portcullis doctor                     this machine
  portcullis doctor --kube              and the cluster: API, CRD, permissions
  portcullis doctor -f hosts.yaml       and the Hosts in these manifests, over SSH
  portcullis doctor --agent             and the tunnels of the agent on this machine

Exit code 3 when a check fails; warnings alone end with 0.

JSON (-o json):
  { \"checks\": [ { \"area\", \"name\", \"verdict\" (ok, warning, failure), \"found\", \"remedy\" } ] }";

/// What to look at beside this machine.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArguments {
    /// Look at the cluster too, and at the hosts that its Host objects name
    #[arg(long, conflicts_with = "manifests")]
    kube: bool,

    /// Look at the tunnels of an agent too: links, blocked UDP, small buffers, ports in use
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = LISTEN)]
    agent: Option<SocketAddr>,

    #[command(flatten)]
    objects: ObjectOptions,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// `this machine`, `cluster`, `Host NAME`, `agent`, or `gateway NAME`.
    area: String,
    name: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

impl Check {
    fn new(area: &str, name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { area: area.to_owned(), name, verdict, found: found.into(), remedy: None }
    }

    fn ok(area: &str, name: &'static str, found: impl Into<String>) -> Self {
        Self::new(area, name, Verdict::Ok, found)
    }

    fn warning(
        area: &str,
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..Self::new(area, name, Verdict::Warning, found) }
    }

    fn failure(
        area: &str,
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { remedy, ..Self::new(area, name, Verdict::Failure, found) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { area, name, verdict, found, remedy } = self;
        let verdict = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warning => "WARN",
            Verdict::Failure => "FAIL",
        };
        write!(f, "{verdict} {area}: {name}: {found}")?;
        match remedy {
            Some(remedy) => write!(f, "\n     -> {remedy}"),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Report {
    checks: Vec<Check>,
}

/// Looks at everything and prints what was found.
pub(crate) async fn run(arguments: &DoctorArguments, output: Output) -> Result {
    let mut checks = kernel::look();
    checks.extend(programs::look().await);
    checks.extend(rules::look().await);
    if arguments.kube {
        checks.extend(cluster::look(&arguments.objects.connection).await);
    }
    if arguments.kube || !arguments.objects.manifests.is_empty() {
        checks.extend(remote::look(&arguments.objects).await?);
    }
    if let Some(address) = arguments.agent {
        checks.extend(tunnels::look(address).await);
    }
    let worst = checks.iter().map(|it| it.verdict).max();
    match output {
        Output::Json => print::json(&Report { checks })?,
        Output::Text => {
            for check in &checks {
                print::line(check)?;
            }
        }
    }
    Ok(if worst == Some(Verdict::Failure) { Ending::Found } else { Ending::Done })
}
