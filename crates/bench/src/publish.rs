//! The benches of the job Publish: visitors on one side of a tunnel, backends on the other, and
//! tunnels of others beside ours. Everything is on one machine and its loopback, so that nothing
//! but the programs is slow.

mod bulk;
mod connections;
mod delay;
mod distance;
mod idle;
mod load;
mod round_trip;
mod site;
mod ways;

use crate::forward::Bench;

/// All of them, the quick ones first.
pub(crate) const BENCHES: &[Bench] = &[
    Bench { name: "round-trip", what: "what a tunnel adds to an answer", run: round_trip::run },
    Bench { name: "connections", what: "what a new visitor waits for", run: connections::run },
    Bench { name: "bulk", what: "how much goes through, and what it costs", run: bulk::run },
    Bench { name: "distance", what: "one stream at 100 ms", run: distance::run },
    Bench { name: "idle-flows", what: "memory at rest and with many visitors", run: idle::run },
];
