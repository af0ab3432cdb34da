//! The commands that show what else a planner has to know about a host.

use command::{Command, Program};

/// Lists interfaces and their addresses, as JSON.
#[must_use]
pub fn addresses() -> Command {
    Command::new(Program::Ip).args(["-j", "addr", "show"])
}

/// Lists listening TCP and UDP sockets, without header and without looking up names.
#[must_use]
pub fn listeners() -> Command {
    Command::new(Program::Ss).args(["-H", "-l", "-n", "-t", "-u"])
}
