//! The whole crate from outside: golden rulesets, laws, the tracer, and the real kernel.

#[path = "it/cases.rs"]
mod cases;
#[path = "it/kernel.rs"]
mod kernel;
#[path = "it/laws.rs"]
mod laws;
