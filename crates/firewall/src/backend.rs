//! The two backends behind one set of functions, and the states that they exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use api::object::ObjectRef;
use command::{Command, Output, Program};
use planner::desired::{Forwarding, Options};

use crate::iptables::tables::Families;
use crate::nftables::layout::{FAMILY, TABLE};
use crate::nftables::listing::{self, NotAListing};
use crate::nftables::plan::{Change, TablePlan};
use crate::nftables::table::Table;
use crate::nftables::{keep, plan, render};

/// How a host's packet filter is programmed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Backend {
    /// One `inet` table of our own, static rules over maps.
    Nftables,
    /// Chains of our own in the tables `nat` and, where asked for, `filter`.
    Iptables,
}

/// A whole ruleset as it should be: the text of a backend, not yet compared with anything.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    pub(crate) nftables: Option<Table>,
    pub(crate) iptables: Option<Families>,
    /// Addresses of node sets by the start of their chains' names, for what is kept.
    pub(crate) node_sets: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// What a host has of ours, as its listings tell.
///
/// Reading it back after an apply gives what [`Plan::apply_to`] gives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    pub(crate) nftables: Option<Table>,
    pub(crate) iptables: Option<Families>,
}

/// The steps from an observed state to a desired one.
///
/// `Display` prints one line a step, for people.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub(crate) nftables: TablePlan,
}

/// Why listings could not be read. Nothing may be changed on a host that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The number of outputs is not the number of listing commands.
    #[error("expected the output of {expected} listing commands, found {found}")]
    Count {
        /// How many commands there were.
        expected: usize,
        /// How many outputs came.
        found: usize,
    },
    /// The command failed.
    #[error("{program} could not list the rules: {message}")]
    Failed {
        /// What was run.
        program: &'static str,
        /// What it wrote to its standard error, or its status.
        message: String,
    },
    /// What came is no listing.
    #[error("{program} printed something that is not a listing")]
    Unreadable {
        /// What was run.
        program: &'static str,
        /// What is wrong with it.
        #[source]
        source: NotAListing,
    },
}

impl Backend {
    /// Returns the commands whose outputs [`observe`](Self::observe) reads, in order.
    #[must_use]
    pub fn listing(self, _options: Options) -> Vec<Command> {
        vec![Command::new(Program::Nft).args(["-j", "list", "table", FAMILY, TABLE])]
    }

    /// Reads what the listing commands printed.
    ///
    /// # Errors
    ///
    /// Fails when a command failed for another reason than that we have no rules yet, and when
    /// its output is no listing. A failed read is never an empty state.
    pub fn observe(self, outputs: &[Output]) -> Result<Observed, ListingError> {
        let [nft] = outputs else {
            return Err(ListingError::Count { expected: 1, found: outputs.len() });
        };
        Ok(Observed { nftables: observe_nftables(nft)?, iptables: None })
    }

    /// Returns the ruleset that does what `forwarding` says. The same input gives the same text.
    #[must_use]
    pub fn render(self, forwarding: &Forwarding) -> Ruleset {
        let node_sets = forwarding
            .node_sets
            .iter()
            .map(|(set, nodes)| (render::node_set_prefix(set), nodes.clone()))
            .collect();
        Ruleset { nftables: Some(render::render(forwarding)), iptables: None, node_sets }
    }

    /// Returns what turns `observed` into `desired`; empty exactly when nothing has to change.
    ///
    /// What the host still forwards for an owner in `keep` stays, unless `desired` claims the
    /// same host port. `observed` must have been read from the host: the previous wish would
    /// hide every change that was made behind our back.
    #[must_use]
    pub fn plan(self, desired: &Ruleset, observed: &Observed, keep: &BTreeSet<ObjectRef>) -> Plan {
        let old = observed.nftables.as_ref();
        let nftables = match (&desired.nftables, old) {
            (Some(new), Some(old)) if !keep.is_empty() => {
                let kept = keep::with_kept(new, old, keep, &desired.node_sets);
                plan::plan(Some(&kept), Some(old))
            }
            (new, old) => plan::plan(new.as_ref(), old),
        };
        Plan { nftables }
    }

    /// Returns what removes everything of ours.
    #[must_use]
    pub fn cleanup(self, observed: &Observed) -> Plan {
        self.plan(&Ruleset::default(), observed, &BTreeSet::new())
    }
}

impl Ruleset {
    /// The whole ruleset as the kernel would get it.
    #[must_use]
    pub fn text(&self) -> String {
        self.nftables.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The state of a host on which this ruleset is in force.
    #[must_use]
    pub fn as_observed(&self) -> Observed {
        Observed { nftables: self.nftables.clone(), iptables: self.iptables.clone() }
    }

    /// How many host ports are forwarded, each exposure for itself.
    #[must_use]
    pub fn forwards(&self) -> usize {
        self.nftables.as_ref().map_or(0, Table::count)
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Observed {
    /// The state as the commands that would restore it: the whole of it, in one transaction for
    /// each family.
    #[must_use]
    pub fn forwards(&self) -> usize {
        self.nftables.as_ref().map_or(0, Table::count)
    }
}

impl Plan {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nftables.change == Change::Nothing
    }

    /// How many steps people are told.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.nftables.steps
    }

    /// Returns the commands that carry the plan out: one transaction for nftables, and for
    /// iptables one for each family. None when the plan is empty.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        self.nftables.change.document().map(load).into_iter().collect()
    }

    /// Does to `observed` what the host does when the commands succeed.
    pub fn apply_to(&self, observed: &mut Observed) {
        self.nftables.change.apply_to(&mut observed.nftables);
    }

    /// Returns the commands that restore `before`, whatever came of this plan's commands.
    #[must_use]
    pub fn rollback(&self, before: &Observed) -> Vec<Command> {
        if self.is_empty() {
            return Vec::new();
        }
        let change = match &before.nftables {
            Some(table) => Change::Replace(Box::new(table.clone())),
            None => Change::Remove,
        };
        change.document().map(load).into_iter().collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.nftables.steps.iter().try_for_each(|it| writeln!(f, "{it}"))
    }
}

fn load(document: String) -> Command {
    Command::new(Program::Nft).args(["-f", "-"]).stdin(document)
}

fn observe_nftables(output: &Output) -> Result<Option<Table>, ListingError> {
    let program = Program::Nft.name();
    if output.succeeded() {
        let table = listing::parse(&output.stdout)
            .map_err(|source| ListingError::Unreadable { program, source })?;
        return Ok(Some(table));
    }
    // nft never sets a locale, so its messages are always English.
    if output.stderr.starts_with("Error: No such file or directory") {
        return Ok(None);
    }
    Err(ListingError::Failed { program, message: failure(output) })
}

fn failure(output: &Output) -> String {
    let message = output.stderr.trim();
    match (message, output.status) {
        ("", Some(status)) => format!("exit status {status} without a message"),
        ("", None) => "ended by a signal".to_owned(),
        (message, _) => message.to_owned(),
    }
}
