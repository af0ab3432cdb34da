//! Leads back to this machine what backends answer to visitors' addresses.

use std::fmt::Write as _;

use command::{Command, Program};
use host::{ExecuteError, Executor as _, Local};

/// Our table; nothing else is touched.
const TABLE: &str = "portcullis-agent";

/// The bit of the packet mark. Not one of those that kube-proxy (0x4000, 0x8000), Cilium (0x0f00),
/// Calico (0xffff0000) or Tailscale (0xff0000) use.
const MARK: &str = "0x40/0x40";

/// The routing table with the one route that delivers here whatever is marked.
const ROUTES: &str = "7443";

/// Before the main table (32766) and before what network plugins usually add.
const PREFERENCE: &str = "743";

/// Why answers cannot be led back.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// A program could not be run.
    #[error("cannot lead answers back to visitors' addresses")]
    Execute(#[source] ExecuteError),
    /// A program said no.
    #[error("cannot lead answers back to visitors' addresses: `{command}`: {said}")]
    Refused {
        /// What was run.
        command: String,
        /// Its standard error.
        said: String,
    },
}

/// Rules that lead answers back, for as long as the agent runs.
#[derive(Debug)]
pub struct Steering {
    local: Local,
    /// The families that this machine has, as `ip` spells them.
    families: Vec<&'static str>,
}

impl Steering {
    /// Puts the rules in place; those of an earlier run are replaced.
    ///
    /// # Errors
    ///
    /// When this process may not, or `nft` or `ip` is missing.
    pub async fn start() -> Result<Self, SteeringError> {
        let mut steering = Self { local: Local::new(), families: Vec::new() };
        for family in ["-4", "-6"] {
            let route = ["route", "replace", "local", "default", "dev", "lo", "table", ROUTES];
            let routed = steering.run(&ip(family).args(route)).await;
            // A machine may well be without IPv6; never without IPv4.
            if family == "-6" && routed.is_err() {
                break;
            }
            routed?;
            steering.families.push(family);
            // A rule that is there already is refused, an earlier one of ours is removed first.
            let _none_yet = steering.run(&rule(family, "del")).await;
            steering.run(&rule(family, "add")).await?;
        }
        steering.run(&Command::new(Program::Nft).args(["-f", "-"]).stdin(ruleset())).await?;
        Ok(steering)
    }

    /// Removes the rules.
    pub async fn stop(mut self) {
        let delete = Command::new(Program::Nft).args(["delete", "table", "inet", TABLE]);
        let mut undo = vec![delete];
        for family in std::mem::take(&mut self.families) {
            undo.push(rule(family, "del"));
            undo.push(ip(family).args(["route", "flush", "table", ROUTES]));
        }
        for command in undo {
            if let Err(error) = self.run(&command).await {
                tracing::warn!(%error, "steering rules stay behind");
            }
        }
    }

    async fn run(&self, command: &Command) -> Result<(), SteeringError> {
        let output = self.local.clone().run(command).await.map_err(SteeringError::Execute)?;
        if output.succeeded() {
            return Ok(());
        }
        let said = output.stderr.trim().to_owned();
        Err(SteeringError::Refused { command: command.to_string(), said })
    }
}

fn ip(family: &str) -> Command {
    Command::new(Program::Ip).arg(family)
}

fn rule(family: &str, action: &str) -> Command {
    ip(family).args(["rule", action, "fwmark", MARK, "lookup", ROUTES, "pref", PREFERENCE])
}

/// One transaction: the table as it should be, whatever it was.
fn ruleset() -> String {
    let mut text = String::new();
    // The first line makes the second one possible.
    let _ = writeln!(text, "table inet {TABLE}");
    let _ = writeln!(text, "delete table inet {TABLE}");
    let _ = writeln!(text, "table inet {TABLE} {{");
    let _ = writeln!(text, "  chain steer {{");
    let _ = writeln!(text, "    comment \"answers to the visitors of transparent backends\"");
    let _ = writeln!(text, "    type filter hook prerouting priority mangle; policy accept;");
    // Bound to one address, so that the listening socket of somebody's proxy is left alone.
    let _ = writeln!(
        text,
        "    socket transparent 1 socket wildcard 0 meta mark set meta mark or 0x40"
    );
    let _ = writeln!(text, "  }}");
    let _ = writeln!(text, "}}");
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn only_answers_to_bound_transparent_sockets_are_marked() {
        expect![[r#"
            table inet portcullis-agent
            delete table inet portcullis-agent
            table inet portcullis-agent {
              chain steer {
                comment "answers to the visitors of transparent backends"
                type filter hook prerouting priority mangle; policy accept;
                socket transparent 1 socket wildcard 0 meta mark set meta mark or 0x40
              }
            }
        "#]]
        .assert_eq(&ruleset());
        expect!["ip -4 rule add fwmark 0x40/0x40 lookup 7443 pref 743"]
            .assert_eq(&rule("-4", "add").to_string());
    }
}
