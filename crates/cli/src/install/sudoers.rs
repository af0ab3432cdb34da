//! The sudoers lines of the three ways to be allowed on a host.

use clap::{Args, ValueEnum};

use super::{Document, account, plain_path};
use crate::ending::Result;

/// Whom to permit what.
#[derive(Args, Debug)]
pub(crate) struct SudoersArguments {
    /// The way to be allowed on the host
    #[arg(long, value_name = "MODE", default_value = "forced-command")]
    mode: SudoersMode,

    /// The Host has acceptForwarded: true, which needs rules of iptables too (mode nft only)
    #[arg(long)]
    accept_forwarded: bool,

    /// The account on the host
    #[arg(long, value_name = "ACCOUNT", default_value = "portcullis", value_parser = account)]
    user: String,

    /// Where the program is on the host (forced-command only)
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/portcullis", value_parser = plain_path)]
    program: String,
}

/// The way to be allowed on a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum SudoersMode {
    /// Exactly one program, which checks every command itself (preferred)
    ForcedCommand,
    /// Nothing of ours on the host; the account may write any nftables rule
    Nft,
    /// Nothing of ours on the host; the account may write any rule of iptables
    Iptables,
    /// As Epok had it, with the programs that make one transaction of a change; the account is as
    /// good as root
    Epok,
}

/// Exactly the command lines that read and write rules of iptables, the same for both families.
const IPTABLES: [&str; 3] = ["-save \"\"", "-save -t nat", "-restore --noflush --wait"];

/// Returns the lines.
pub(super) fn document(arguments: &SudoersArguments) -> Result<Document> {
    let SudoersArguments { mode, accept_forwarded, user, program } = arguments;
    let iptables = |ends: &[&str]| -> Vec<String> {
        let families = ["/usr/sbin/iptables", "/usr/sbin/ip6tables"].into_iter();
        families.flat_map(|it| ends.iter().map(move |end| format!("{it}{end}"))).collect()
    };
    // Flows of targets that are gone; the wildcard stands for addresses and ports.
    let conntrack = "/usr/sbin/conntrack -D -f *".to_owned();
    let (remark, commands) = match mode {
        SudoersMode::ForcedCommand => (
            "One program, which permits nothing but changes of its own rules.",
            vec![format!("{program} host-apply")],
        ),
        SudoersMode::Nft => (
            "Exactly these command lines. `nft -f -` reads any ruleset, so this account controls\n\
             # the host's packet filter; the forced command does not have to be trusted that far.",
            ["/usr/sbin/nft -f -", "/usr/sbin/nft -j list table inet portcullis"]
                .map(str::to_owned)
                .into_iter()
                .chain(if *accept_forwarded { iptables(&IPTABLES) } else { Vec::new() })
                .chain([conntrack])
                .collect(),
        ),
        SudoersMode::Iptables => (
            "Exactly these command lines. iptables-restore reads any ruleset, so this account\n\
             # controls the host's packet filter; the forced command does not have to be trusted that far.",
            iptables(&IPTABLES).into_iter().chain([conntrack]).collect(),
        ),
        SudoersMode::Epok => (
            "The line of Epok, with the programs that make one transaction of a change. iptables\n\
             # can start other programs, so this account is as good as root.",
            iptables(&["", "-save", "-restore"]).into_iter().chain([conntrack]).collect(),
        ),
    };
    let lines = commands.iter().map(|it| format!("{user} ALL=(root) NOPASSWD: {it}\n"));
    Ok(Document {
        kind: "sudoers",
        place: format!("/etc/sudoers.d/{user}"),
        text: format!("# {remark}\n{}", lines.collect::<String>()),
        steps: vec![
            format!("save it as /etc/sudoers.d/{user}, owner root, mode 0440"),
            "check it before you log out: visudo -c".to_owned(),
        ],
    })
}
