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
    /// As Epok had it, with iptables-restore; the account is as good as root
    Iptables,
}

/// Returns the lines.
pub(super) fn document(arguments: &SudoersArguments) -> Result<Document> {
    let SudoersArguments { mode, user, program } = arguments;
    let conntrack = "/usr/sbin/conntrack";
    let (remark, commands) = match mode {
        SudoersMode::ForcedCommand => (
            "One program, which permits nothing but changes of its own rules.",
            vec![format!("{program} host-apply")],
        ),
        SudoersMode::Nft => (
            "Exactly these command lines. `nft -f -` reads any ruleset, so this account controls\n\
             # the host's packet filter; the forced command does not have to be trusted that far.",
            vec![
                "/usr/sbin/nft -f -".to_owned(),
                "/usr/sbin/nft -j list table inet portcullis".to_owned(),
                format!("{conntrack} -D *"),
            ],
        ),
        SudoersMode::Iptables => (
            "The lines of Epok, with the programs that make one transaction of a change.\n\
             # iptables can start other programs, so this account is as good as root.",
            ["iptables", "ip6tables"]
                .iter()
                .flat_map(|it| ["", "-save", "-restore"].map(|end| format!("/usr/sbin/{it}{end}")))
                .chain([format!("{conntrack} -D *")])
                .collect(),
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
