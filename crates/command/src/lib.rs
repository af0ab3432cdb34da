//! A program, its arguments and its input, as a value.
//!
//! Whoever decides what should run on a host builds a [`Command`]; whoever can reach the host
//! runs it. A command can be compared, printed and sent, and there is no shell anywhere on its
//! way: an argument cannot become a word. The one place where a remote shell is unavoidable, the
//! `exec` request of SSH, takes its text from [`Command::to_shell_line`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Every program that may be started on a host.
///
/// A closed list, so that no user text can name a program, and so that sudoers lines and the
/// forced command can be checked against it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Reads and writes nftables.
    Nft,
    /// Reads and writes single IPv4 rules; used only to look at old hosts.
    Iptables,
    /// Reads and writes single IPv6 rules.
    Ip6tables,
    /// Lists IPv4 rules.
    IptablesSave,
    /// Lists IPv6 rules.
    Ip6tablesSave,
    /// Applies IPv4 rules in one transaction for each table.
    IptablesRestore,
    /// Applies IPv6 rules in one transaction for each table.
    Ip6tablesRestore,
    /// Lists and deletes tracked connections.
    Conntrack,
    /// Lists interfaces, addresses and routes.
    Ip,
    /// Lists listening sockets.
    Ss,
    /// Reads kernel settings.
    Sysctl,
}

impl Program {
    /// The name under which the program is found on the host's own `PATH`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::Ip6tables => "ip6tables",
            Self::IptablesSave => "iptables-save",
            Self::Ip6tablesSave => "ip6tables-save",
            Self::IptablesRestore => "iptables-restore",
            Self::Ip6tablesRestore => "ip6tables-restore",
            Self::Conntrack => "conntrack",
            Self::Ip => "ip",
            Self::Ss => "ss",
            Self::Sysctl => "sysctl",
        }
    }

    /// Whether the program must run as root (or with `CAP_NET_ADMIN`) to do what we ask of it.
    #[must_use]
    pub fn needs_root(self) -> bool {
        match self {
            Self::Ip | Self::Ss | Self::Sysctl => false,
            Self::Nft
            | Self::Iptables
            | Self::Ip6tables
            | Self::IptablesSave
            | Self::Ip6tablesSave
            | Self::IptablesRestore
            | Self::Ip6tablesRestore
            | Self::Conntrack => true,
        }
    }
}

/// A program, its arguments and its standard input.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// What is started.
    pub program: Program,
    /// The arguments, passed as they are.
    pub args: Vec<String>,
    /// What the program reads from its standard input, to its end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
}

impl Command {
    /// Returns a command without arguments and with empty input.
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self { program, args: Vec::new(), stdin: String::new() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments in order.
    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<String>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Returns program and arguments as one line for a POSIX shell, with every argument that is
    /// not plain in single quotes.
    ///
    /// SSH offers no other way to name a remote program (RFC 4254 section 6.5): the server hands
    /// the text to the account's shell.
    #[must_use]
    pub fn to_shell_line(&self) -> String {
        let mut line = self.program.name().to_owned();
        for arg in &self.args {
            line.push(' ');
            line.push_str(&quote(arg));
        }
        line
    }
}

/// The command line alone; the input may be long and is not for one line of a log.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_shell_line())
    }
}

/// What a command left behind when it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The exit status; `None` when a signal ended the program.
    pub status: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    /// Whether the program ended with status 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status == Some(0)
    }
}

fn quote(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+:,./@%".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "a real shell says whether the quoting holds")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_arguments_stay_readable() {
        let list = Command::new(Program::Nft).args(["-j", "list", "table", "inet", "portcullis"]);
        assert_eq!(list.to_string(), "nft -j list table inet portcullis");
    }

    #[test]
    fn hostile_arguments_stay_one_word() {
        let hostile = Command::new(Program::Ip).arg("$(reboot)").arg("a'; reboot #").arg("");
        assert_eq!(hostile.to_string(), r"ip '$(reboot)' 'a'\''; reboot #' ''");
    }

    proptest! {
        #[test]
        fn a_shell_reads_back_what_was_quoted(arg in "[^\0]{0,40}") {
            let line = format!("printf %s {}", quote(&arg));
            let shell = std::process::Command::new("sh").arg("-c").arg(line).output();
            prop_assert_eq!(shell.expect("sh runs").stdout, arg.into_bytes());
        }
    }
}
