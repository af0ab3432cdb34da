//! What every program of ours has: it reads arguments, ends with exit codes that scripts rely on,
//! prints, logs, runs, and says which build it is.
//!
//! Nothing here knows what a program does, so that a small program stays small. What only one of
//! them has, stands there.

pub mod arguments;
pub mod ending;
pub mod logging;
pub mod print;
pub mod runtime;
pub mod version;
