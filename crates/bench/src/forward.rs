//! The benches of the job Forward.

mod apply;
mod edge;
mod first_connection;
mod idle;
mod lag;
mod large_cluster;
mod ssh;
mod traffic;

use anyhow::Result;

use crate::Setting;
use crate::row::Row;

/// One bench: a set-up that gives some rows.
pub(crate) struct Bench {
    /// What `--only` takes.
    pub(crate) name: &'static str,
    /// What it measures.
    pub(crate) what: &'static str,
    /// Measures.
    pub(crate) run: fn(&Setting) -> Result<Vec<Row>>,
}

/// All of them, the quick ones first.
pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "lag", what: "a changed annotation to the rule in the kernel", run: lag::run },
    Bench {
        name: "first-connection",
        what: "a write to the API server to the first connection",
        run: first_connection::run,
    },
    Bench { name: "apply", what: "whole rulesets in one transaction", run: apply::run },
    Bench { name: "ssh", what: "an update on a host elsewhere", run: ssh::run },
    Bench { name: "traffic", what: "what a connection costs", run: traffic::run },
    Bench { name: "idle", what: "a controller with nothing to do", run: idle::run },
    Bench { name: "large-cluster", what: "1000 Services and 100 nodes", run: large_cluster::run },
];
