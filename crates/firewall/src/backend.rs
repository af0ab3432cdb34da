//! The two backends behind one set of functions, and the states that they exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use api::object::ObjectRef;
use command::{Command, Output, Program};
use planner::desired::{Forwarding, IpFamily, NodeSetName, Options};

use crate::iptables::keep::follow;
use crate::iptables::plan::FamiliesPlan;
use crate::iptables::tables::{Families, Family};
use crate::label::excerpt;
use crate::nftables::layout::{FAMILY, TABLE};
use crate::nftables::listing::{self, NotAListing};
use crate::nftables::plan::{Change, TablePlan};
use crate::nftables::scope::Scope;
use crate::nftables::table::Table;
use crate::nftables::{plan, render};
use crate::reach::Reach;
use crate::{iptables, nftables};

/// How much of what a program printed is told, in characters.
const LINE: usize = 200;

/// The programs that list a family, and those that change it.
const SAVE: [Program; 2] = [Program::IptablesSave, Program::Ip6tablesSave];
const RESTORE: [Program; 2] = [Program::IptablesRestore, Program::Ip6tablesRestore];

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
    pub(crate) iptables: Families,
    /// Addresses of node sets by the start of their chains' names, for what is kept.
    pub(crate) node_sets: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// What a host has of ours, as its listings tell.
///
/// Reading it back after an apply gives what [`Plan::apply_to`] gives.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    pub(crate) nftables: Option<Table>,
    pub(crate) iptables: Families,
}

/// The steps from an observed state to a desired one.
///
/// `Display` prints one line a step, for people.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    pub(crate) nftables: TablePlan,
    pub(crate) iptables: FamiliesPlan,
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
    /// What came is no listing of nft.
    #[error(
        "{program} printed something that is not a listing; if it stays so, remove the table with \
         `nft delete table {FAMILY} {TABLE}`, and it is written anew"
    )]
    Unreadable {
        /// What was run.
        program: &'static str,
        /// What is wrong with it.
        #[source]
        source: NotAListing,
    },
    /// What came is no listing of iptables, or its end is missing.
    #[error("{program} printed something that is not a whole listing: `{line}`")]
    Line {
        /// What was run.
        program: &'static str,
        /// What was found in it.
        line: String,
    },
}

impl Backend {
    /// Returns the commands whose outputs [`observe`](Self::observe) reads, in order.
    ///
    /// Packets that a host's own rules drop can only be accepted where they are dropped, which is
    /// in the tables of iptables; so with `accept_forwarded` these are listed for nftables too.
    /// To find what an earlier run left there, list with the option on.
    #[must_use]
    pub fn listing(self, options: Options) -> Vec<Command> {
        let nft = || Command::new(Program::Nft).args(["-j", "list", "table", FAMILY, TABLE]);
        let [v4, v6] = SAVE.map(Command::new);
        match self {
            Self::Nftables if options.accept_forwarded => vec![nft(), v4, v6],
            Self::Nftables => vec![nft()],
            Self::Iptables => vec![v4, v6],
        }
    }

    /// Reads what the listing commands printed.
    ///
    /// # Errors
    ///
    /// Fails when a command failed for another reason than that we have no rules yet, and when
    /// its output is no listing. A failed read is never an empty state.
    pub fn observe(self, outputs: &[Output]) -> Result<Observed, ListingError> {
        let (nftables, saves) = match (self, outputs) {
            (Self::Nftables, [nft, saves @ ..]) => (observe_nftables(nft)?, saves),
            (Self::Nftables, []) => return Err(ListingError::Count { expected: 1, found: 0 }),
            (Self::Iptables, saves) => (None, saves),
        };
        let iptables = match saves {
            [] if self == Self::Nftables => Families::default(),
            [v4, v6] => Families {
                ipv4: observe_iptables(SAVE[0], v4)?,
                ipv6: observe_iptables(SAVE[1], v6)?,
            },
            other => return Err(ListingError::Count { expected: 2, found: other.len() }),
        };
        Ok(Observed { nftables, iptables })
    }

    /// Returns the ruleset that does what `forwarding` says. The same input gives the same text.
    #[must_use]
    pub fn render(self, forwarding: &Forwarding) -> Ruleset {
        match self {
            Self::Nftables => Ruleset {
                nftables: Some(render::render(forwarding)),
                iptables: iptables::render::render_acceptance(forwarding),
                node_sets: IpFamily::ALL
                    .map(NodeSetName::OfFamily)
                    .iter()
                    .chain(forwarding.node_sets.keys())
                    .map(|it| (render::node_set_prefix(it), forwarding.nodes(it).collect()))
                    .collect(),
            },
            Self::Iptables => Ruleset {
                nftables: None,
                iptables: iptables::render::render(forwarding),
                node_sets: BTreeMap::new(),
            },
        }
    }

    /// Returns what turns `observed` into `desired`; empty exactly when nothing has to change.
    ///
    /// What the host still forwards for an owner in `keep` stays, unless `desired` claims the
    /// same host port. `observed` must have been read from the host: the previous wish would
    /// hide every change that was made behind our back.
    #[must_use]
    pub fn plan(self, desired: &Ruleset, observed: &Observed, keep: &BTreeSet<ObjectRef>) -> Plan {
        if keep.is_empty() {
            return plan_within(desired, observed, &Scope::Everywhere);
        }
        match (&desired.nftables, &observed.nftables) {
            (Some(new), Some(old)) => {
                let mut table = nftables::keep::with_kept(new, old, keep, &desired.node_sets);
                let mut families = desired.iptables.clone();
                if table != *new {
                    let state = Observed { nftables: Some(table), ..Observed::default() };
                    let [v4, v6] = Reach::new(&state).keys();
                    table = state.nftables.unwrap_or_default();
                    follow(&mut families.ipv4, &observed.iptables.ipv4, &v4);
                    follow(&mut families.ipv6, &observed.iptables.ipv6, &v6);
                }
                plan_between(Some(&table), &families, observed)
            }
            (Some(new), None) => plan_between(Some(new), &desired.iptables, observed),
            (None, _) => {
                let families =
                    iptables::keep::with_kept(&desired.iptables, &observed.iptables, keep);
                plan_between(None, &families, observed)
            }
        }
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
        let mut text = self.nftables.as_ref().map(ToString::to_string).unwrap_or_default();
        for (v6, family) in self.iptables.each() {
            if !family.tables.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(text, "# {}\n{family}", RESTORE[usize::from(v6)].name());
            }
        }
        text
    }

    /// The state of a host on which this ruleset is in force.
    #[must_use]
    pub fn as_observed(&self) -> Observed {
        Observed { nftables: self.nftables.clone(), iptables: self.iptables.clone() }
    }

    /// How many host ports are forwarded, each exposure for itself.
    #[must_use]
    pub fn forwards(&self) -> usize {
        count(self.nftables.as_ref(), &self.iptables)
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Observed {
    /// How many host ports the host forwards, each exposure for itself.
    #[must_use]
    pub fn forwards(&self) -> usize {
        count(self.nftables.as_ref(), &self.iptables)
    }

    /// Whether the host has nothing of ours.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nftables.is_none() && self.iptables.is_empty()
    }
}

impl Plan {
    /// Whether nothing has to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nftables.change == Change::Nothing && self.iptables.is_empty()
    }

    /// The steps as people are told them, one line each.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.nftables.steps.iter().chain(&self.iptables.steps).map(String::as_str)
    }

    /// Returns the commands that carry the plan out: one transaction for nftables, and for
    /// iptables one for each family. None when the plan is empty.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let nft = self.nftables.change.document().map(load);
        nft.into_iter().chain(self.iptables.commands()).collect()
    }

    /// Does to `observed` what the host does when the commands succeed.
    pub fn apply_to(&self, observed: &mut Observed) {
        self.nftables.change.apply_to(&mut observed.nftables);
        if !self.iptables.is_empty() {
            observed.iptables.clone_from(&self.iptables.after);
        }
    }

    /// Returns the commands that restore `before` after this plan's commands have succeeded.
    ///
    /// What somebody else put into our table and our chains is not written again.
    ///
    /// The nftables transaction restores it whatever came of them. Those of iptables are refused
    /// by the kernel, and change nothing, on a host that this plan has not changed.
    #[must_use]
    pub fn rollback(&self, before: &Observed) -> Vec<Command> {
        let nft = (self.nftables.change != Change::Nothing).then(|| match &before.nftables {
            Some(table) => Change::Replace(Box::new(table.writable())),
            None => Change::Remove,
        });
        let nft = nft.and_then(|it| it.document()).map(load);
        let back = match self.iptables.is_empty() {
            true => Vec::new(),
            false => {
                iptables::plan::plan(&before.iptables.writable(), &self.iptables.after).commands()
            }
        };
        nft.into_iter().chain(back).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps().try_for_each(|it| writeln!(f, "{it}"))
    }
}

/// Returns what turns `observed` into `desired`, which differ at most within `scope`.
pub(crate) fn plan_within(desired: &Ruleset, observed: &Observed, scope: &Scope) -> Plan {
    Plan {
        nftables: plan::plan(desired.nftables.as_ref(), observed.nftables.as_ref(), scope),
        iptables: iptables::plan::plan(&desired.iptables, &observed.iptables),
    }
}

fn plan_between(table: Option<&Table>, families: &Families, observed: &Observed) -> Plan {
    Plan {
        nftables: plan::plan(table, observed.nftables.as_ref(), &Scope::Everywhere),
        iptables: iptables::plan::plan(families, &observed.iptables),
    }
}

fn count(table: Option<&Table>, families: &Families) -> usize {
    let chains = families.each().map(|(_, family)| iptables::plan::keys(family));
    let [v4, v6] = chains;
    table.map_or(0, Table::count) + v4.union(&v6).count()
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

fn observe_iptables(program: Program, output: &Output) -> Result<Family, ListingError> {
    let program = program.name();
    if !output.succeeded() {
        return Err(ListingError::Failed { program, message: failure(output) });
    }
    let unreadable = |line: String| ListingError::Line { program, line: excerpt(&line, LINE) };
    iptables::listing::parse(&output.stdout).map_err(unreadable)
}

fn failure(output: &Output) -> String {
    // nft shows the offending line below its message.
    let message = output.stderr.lines().map(str::trim).find(|it| !it.is_empty());
    match (message, output.status) {
        (None, Some(status)) => format!("exit status {status} without a message"),
        (None, None) => "ended by a signal".to_owned(),
        (Some(message), _) => excerpt(message, LINE),
    }
}
