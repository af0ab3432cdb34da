//! Why a command did not run to its end, in words for the one who has to do something about it.

use std::time::Duration;

use command::{Command, Program};
use serde::{Deserialize, Serialize};

/// Where the remedy for an [`ExecuteError`] lies.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Blame {
    /// Something on the host: a missing package, a sudoers line, an overloaded machine.
    Host,
    /// Something between us and the host, or the host is down.
    Network,
    /// What the user wrote about the host: address, user, keys, mode.
    Configuration,
    /// Nobody outside this program; please report it.
    Program,
}

/// Why a command did not run to its end.
///
/// Each variant names the host (`this machine` for local execution) and says what to do.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ExecuteError {
    /// The program is missing or could not be started.
    #[error(
        "cannot start `{program}` on {host}: {reason}; install it there with `apt install {package}`"
    )]
    CannotStart {
        /// The host.
        host: String,
        /// The program that is missing.
        program: String,
        /// The Debian package that brings it.
        package: String,
        /// What the system said.
        reason: String,
    },

    /// `sudo` does not permit the command without a password.
    #[error(
        "sudo on {host} does not let user `{user}` run `{command}`: {reason}; \
         add this line to /etc/sudoers.d/portcullis there: {sudoers_line}"
    )]
    SudoRefused {
        /// The host.
        host: String,
        /// The account that we log in as.
        user: String,
        /// What was to be run.
        command: String,
        /// What sudo said.
        reason: String,
        /// The line that permits exactly this command.
        sudoers_line: String,
    },

    /// The other end runs the forced command, and that does not permit this command.
    #[error("{host} refuses to run `{command}`: {reason}")]
    Refused {
        /// The host.
        host: String,
        /// What was to be run.
        command: String,
        /// Why not.
        reason: String,
    },

    /// The host has another key than the one pinned: another machine answers at this address.
    #[error(
        "{host} shows the host key {found}, but {pinned} is pinned; if the host was reinstalled, \
         pin its new key, otherwise somebody sits in between"
    )]
    HostKeyMismatch {
        /// The host.
        host: String,
        /// Fingerprint of the pinned key, as `SHA256:…`.
        pinned: String,
        /// Fingerprint of the key that was shown.
        found: String,
    },

    /// The host does not accept our key for this user.
    #[error(
        "{host} does not accept the key {fingerprint} for user `{user}`; add its public half to \
         that user's authorized_keys"
    )]
    AuthenticationFailed {
        /// The host.
        host: String,
        /// The account that we log in as.
        user: String,
        /// Fingerprint of the key that we offered.
        fingerprint: String,
    },

    /// There is no connection to the host.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// What the last attempt ended with.
        reason: String,
    },

    /// The command did not end in time.
    #[error("`{command}` on {host} did not end within {after:?}")]
    Deadline {
        /// The host.
        host: String,
        /// What was run.
        command: String,
        /// The time it was given.
        after: Duration,
    },

    /// The command wrote more than we are willing to hold.
    #[error("`{command}` on {host} wrote more than {limit} bytes")]
    OutputTooLong {
        /// The host.
        host: String,
        /// What was run.
        command: String,
        /// The most that is accepted, in bytes.
        limit: usize,
    },

    /// The command's input is longer than the host accepts.
    #[error("the input of `{command}` is {size} bytes long, {host} accepts {limit}")]
    InputTooLong {
        /// The host.
        host: String,
        /// What was to be run.
        command: String,
        /// The length of the input, in bytes.
        size: usize,
        /// The most that is accepted, in bytes.
        limit: usize,
    },

    /// The host still waits for the confirmation of an earlier change.
    #[error(
        "{host} waits for the confirmation of an earlier change and rolls it back in {left:?}; \
         nothing else is changed before that"
    )]
    ConfirmationPending {
        /// The host.
        host: String,
        /// When the earlier change is rolled back at the latest.
        left: Duration,
    },

    /// A change was applied, but not confirmed; the host rolls it back.
    #[error("the change on {host} was not confirmed and is rolled back: {reason}")]
    NotConfirmed {
        /// The host.
        host: String,
        /// What kept us from confirming it.
        reason: String,
    },

    /// A change with confirmation was asked for in a way that cannot give it.
    #[error("a change on {host} cannot be made with confirmation: {reason}")]
    ConfirmationUnsupported {
        /// The host.
        host: String,
        /// What is missing.
        reason: String,
    },

    /// The other end does not speak as agreed.
    #[error("{host} does not answer as expected: {reason}")]
    Protocol {
        /// The host.
        host: String,
        /// What was expected and what came.
        reason: String,
    },
}

impl ExecuteError {
    /// Whether the same command can succeed later without anybody changing what is configured.
    ///
    /// True as well for what has to be repaired on the host, because nobody tells us when it is.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::CannotStart { .. }
            | Self::SudoRefused { .. }
            | Self::HostKeyMismatch { .. }
            | Self::AuthenticationFailed { .. }
            | Self::Unreachable { .. }
            | Self::Deadline { .. }
            | Self::ConfirmationPending { .. }
            | Self::NotConfirmed { .. }
            | Self::Protocol { .. } => true,
            Self::Refused { .. }
            | Self::OutputTooLong { .. }
            | Self::InputTooLong { .. }
            | Self::ConfirmationUnsupported { .. } => false,
        }
    }

    /// Says of which host this is true: the forced command only knows "this machine".
    pub(crate) fn on(mut self, name: &str) -> Self {
        match &mut self {
            Self::CannotStart { host, .. }
            | Self::SudoRefused { host, .. }
            | Self::Refused { host, .. }
            | Self::HostKeyMismatch { host, .. }
            | Self::AuthenticationFailed { host, .. }
            | Self::Unreachable { host, .. }
            | Self::Deadline { host, .. }
            | Self::OutputTooLong { host, .. }
            | Self::InputTooLong { host, .. }
            | Self::ConfirmationPending { host, .. }
            | Self::NotConfirmed { host, .. }
            | Self::ConfirmationUnsupported { host, .. }
            | Self::Protocol { host, .. } => name.clone_into(host),
        }
        self
    }

    pub(crate) fn cannot_start(host: &str, program: Program, reason: &str) -> Self {
        Self::CannotStart {
            host: host.to_owned(),
            program: program.name().to_owned(),
            package: package(program).to_owned(),
            reason: reason.to_owned(),
        }
    }

    pub(crate) fn deadline(host: &str, command: &Command, after: Duration) -> Self {
        Self::Deadline { host: host.to_owned(), command: command.to_string(), after }
    }

    pub(crate) fn output_too_long(host: &str, command: &Command, limit: usize) -> Self {
        Self::OutputTooLong { host: host.to_owned(), command: command.to_string(), limit }
    }

    pub(crate) fn unreachable(host: &str, reason: impl Into<String>) -> Self {
        Self::Unreachable { host: host.to_owned(), reason: reason.into() }
    }

    pub(crate) fn protocol(host: &str, reason: impl Into<String>) -> Self {
        Self::Protocol { host: host.to_owned(), reason: reason.into() }
    }

    pub(crate) fn not_confirmed(host: &str, reason: impl Into<String>) -> Self {
        Self::NotConfirmed { host: host.to_owned(), reason: reason.into() }
    }

    /// Where the remedy lies.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::CannotStart { .. }
            | Self::SudoRefused { .. }
            | Self::Deadline { .. }
            | Self::ConfirmationPending { .. }
            | Self::Protocol { .. } => Blame::Host,
            Self::Unreachable { .. } | Self::NotConfirmed { .. } => Blame::Network,
            Self::HostKeyMismatch { .. }
            | Self::AuthenticationFailed { .. }
            | Self::ConfirmationUnsupported { .. } => Blame::Configuration,
            Self::Refused { .. } | Self::OutputTooLong { .. } | Self::InputTooLong { .. } => {
                Blame::Program
            }
        }
    }
}

/// The Debian package that a program comes from.
fn package(program: Program) -> &'static str {
    match program {
        Program::Nft => "nftables",
        Program::Iptables
        | Program::Ip6tables
        | Program::IptablesSave
        | Program::Ip6tablesSave
        | Program::IptablesRestore
        | Program::Ip6tablesRestore => "iptables",
        Program::Conntrack => "conntrack",
        Program::Ip | Program::Ss => "iproute2",
        Program::Sysctl => "procps",
    }
}
