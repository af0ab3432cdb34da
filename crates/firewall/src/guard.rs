//! Which commands a host may run for us: the list behind the forced command of an SSH key.
//!
//! Only what this crate itself produces passes. Documents are read line by line with the readers
//! that know our rules and nothing else, so that whoever steals the key can change our own table
//! and our own chains, and cannot make the host include a file, load a module, start a program or
//! touch a rule of others.

mod nft;
mod restore;

use std::net::IpAddr;

use command::{Command, Program};

pub(crate) use restore::is_plain;

use crate::label::excerpt;
use crate::nftables::layout::{FAMILY, TABLE};

/// A command that does not pass, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The program with these arguments is not on the list.
    #[error("`{0}` is not on the list of allowed commands")]
    Command(String),
    /// The document holds a line that we would never write.
    #[error("{program} may not be given line {number}: `{line}`")]
    Line {
        /// The program that would read it.
        program: &'static str,
        /// The number of the line, from 1.
        number: usize,
        /// The line.
        line: String,
    },
    /// The document has no end: a table, a map or a transaction is left open.
    #[error("the document for {0} has no end")]
    Unfinished(&'static str),
}

/// Says whether the host may run `command`.
///
/// # Errors
///
/// Says what is wrong with the first thing that is not allowed.
pub fn check(command: &Command) -> Result<(), Refusal> {
    let args: Vec<_> = command.args.iter().map(String::as_str).collect();
    let refused = || Err(Refusal::Command(excerpt(&command.to_string(), 200)));
    // Readers and programs must agree on what a line is.
    let odd = |it: &str| it.contains(|c: char| c.is_control() && c != '\t');
    if let Some((index, line)) = command.stdin.split('\n').enumerate().find(|(_, it)| odd(it)) {
        let (program, line) = (command.program.name(), excerpt(line, 200));
        return Err(Refusal::Line { program, number: index + 1, line });
    }
    let reads = match (command.program, args.as_slice()) {
        (Program::Nft, ["-f", "-"]) => return nft::check(&command.stdin),
        (program @ (Program::IptablesRestore | Program::Ip6tablesRestore), args)
            if args == ["--noflush", "--wait"] =>
        {
            return restore::check(program.name(), &command.stdin);
        }
        (Program::Nft, args) => args == ["-j", "list", "table", FAMILY, TABLE],
        (Program::IptablesSave | Program::Ip6tablesSave, args) => {
            args.is_empty() || args == ["-t", "nat"]
        }
        (Program::Ip, args) => args == ["-j", "addr", "show"],
        (Program::Ss, args) => args == ["-H", "-l", "-n", "-t", "-u"],
        (Program::Conntrack, args) => is_deletion(args),
        (
            Program::Iptables
            | Program::Ip6tables
            | Program::IptablesRestore
            | Program::Ip6tablesRestore
            | Program::Sysctl,
            _,
        ) => false,
    };
    if reads && command.stdin.is_empty() { Ok(()) } else { refused() }
}

/// Whether these are arguments with which `crate::conntrack` deletes flows.
fn is_deletion(args: &[&str]) -> bool {
    let ["-D", "-f", family, "-p", "udp", rest @ ..] = args else { return false };
    let address = |it: &str| match *family {
        "ipv4" => it.parse::<IpAddr>().is_ok_and(|it| it.is_ipv4()),
        "ipv6" => it.parse::<IpAddr>().is_ok_and(|it| it.is_ipv6()),
        _ => false,
    };
    let port = |it: &str| it.parse::<api::port::Port>().is_ok();
    match rest {
        ["--reply-src", from] => address(from),
        ["--orig-port-dst", to, "--orig-dst", host] => port(to) && address(host),
        ["--orig-port-dst", to, "--reply-src", from, "--reply-port-src", target] => {
            port(to) && address(from) && port(target)
        }
        _ => false,
    }
}
