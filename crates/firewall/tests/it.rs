//! The whole crate from outside: golden rulesets, laws, the tracer, and the real kernel.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read test data and measure time; the crate that they test does neither"
)]

#[path = "it/cases.rs"]
mod cases;
#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/drift.rs"]
mod drift;
#[path = "it/flows.rs"]
mod flows;
#[path = "it/golden.rs"]
mod golden;
#[path = "it/guarding.rs"]
mod guarding;
#[path = "it/keeping.rs"]
mod keeping;
#[path = "it/kernel.rs"]
mod kernel;
#[path = "it/laws.rs"]
mod laws;
#[path = "it/packets.rs"]
mod packets;
#[path = "it/speed.rs"]
mod speed;
#[path = "it/standing.rs"]
mod standing;
#[path = "it/takeover.rs"]
mod takeover;
