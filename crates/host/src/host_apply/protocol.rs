//! What is said between [`Ssh`](crate::Ssh) and [`serve`](super::serve): one JSON object a line.
//!
//! The client greets first. After both greetings, requests may follow each other without waiting;
//! they run in their order, and answers carry the number of their request.

use command::{Command, Output};
use serde::{Deserialize, Serialize};

use crate::ExecuteError;

/// Raised whenever one side would misunderstand the other.
pub(crate) const VERSION: u32 = 1;

/// The longest line, in bytes: the longest input and output with room for JSON's escapes.
pub(crate) const LONGEST_LINE: usize = 256 << 20;

/// From client to host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Request {
    /// Always first.
    Hello {
        version: u32,
        /// After how much silence the host may take the client for gone.
        silence_ms: u64,
    },
    /// Asks for [`Answer::Pong`], to be heard and to hear.
    Ping,
    /// Runs one command.
    Run { id: u64, command: Command, within_ms: u64 },
    /// Runs a change that is rolled back unless confirmed.
    Change {
        id: u64,
        apply: Vec<Command>,
        rollback: Vec<Command>,
        /// For each command.
        within_ms: u64,
        confirm_within_ms: u64,
    },
    /// Confirms a change.
    Confirm { id: u64, token: String },
}

/// From host to client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Answer {
    /// Always first.
    Hello { version: u32, program: String },
    /// To [`Request::Ping`].
    Pong,
    /// To a request that was carried out.
    Done { id: u64, outputs: Vec<Output>, token: Option<String> },
    /// To a request that was not.
    Failed { id: u64, error: ExecuteError },
    /// The host ends the conversation.
    Bye { reason: String },
}

/// Returns `message` as one line. JSON escapes every line break within.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
