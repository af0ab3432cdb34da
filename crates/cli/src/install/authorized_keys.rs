//! The authorized_keys line of the forced command.

use clap::Args;

use super::{Document, account, plain_path};
use crate::ending::Result;

/// Whose key, and what it starts.
#[derive(Args, Debug)]
pub(crate) struct AuthorizedKeysArguments {
    /// The public half of the controller's key, as in `ssh-ed25519 AAAA...`
    #[arg(long, value_name = "PUBLIC KEY", value_parser = public_key)]
    key: String,

    /// The account on the host; root needs no sudo
    #[arg(long, value_name = "ACCOUNT", default_value = "portcullis", value_parser = account)]
    user: String,

    /// Where the program is on the host
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/portcullis", value_parser = plain_path)]
    program: String,

    /// Accept the key only from these addresses or ranges
    #[arg(long, value_name = "RANGE", value_delimiter = ',', value_parser = range)]
    from: Vec<String>,
}

/// Returns the line.
pub(super) fn document(arguments: &AuthorizedKeysArguments) -> Result<Document> {
    let AuthorizedKeysArguments { key, user, program, from } = arguments;
    let sudo = if user == "root" { "" } else { "/usr/bin/sudo -n " };
    let from = match from.as_slice() {
        [] => String::new(),
        from => format!(",from=\"{}\"", from.join(",")),
    };
    let place = match user.as_str() {
        "root" => "/root/.ssh/authorized_keys".to_owned(),
        user => format!("/home/{user}/.ssh/authorized_keys"),
    };
    let mut steps = vec![format!("append the line to {place} on the host")];
    if user != "root" {
        steps.push(format!(
            "let the account run exactly this one program: portcullis install sudoers \
             --mode forced-command --user {user} --program {program}"
        ));
    }
    steps.push("in the Host object: executor.ssh.mode: forcedCommand".to_owned());
    Ok(Document {
        kind: "authorizedKeys",
        place,
        text: format!("restrict{from},command=\"{sudo}{program} host-apply\" {key}\n"),
        steps,
    })
}

/// Accepts one public key of OpenSSH, with or without a comment, which is left out.
fn public_key(text: &str) -> Result<String, String> {
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return Err("expected the content of a .pub file, as in `ssh-ed25519 AAAA...`".to_owned());
    };
    let plain = |it: char| it.is_ascii_alphanumeric() || "-.@".contains(it);
    let base64 = |it: char| it.is_ascii_alphanumeric() || "+/=".contains(it);
    if key.len() < 32 || !kind.chars().all(plain) || !key.chars().all(base64) {
        return Err("expected the content of a .pub file, as in `ssh-ed25519 AAAA...`".to_owned());
    }
    if text.lines().count() > 1 {
        return Err("expected one key, found several lines".to_owned());
    }
    Ok(format!("{kind} {key} portcullis"))
}

/// Accepts an address or a range, as `from=` takes them.
fn range(text: &str) -> Result<String, String> {
    let (address, length) = text.split_once('/').unwrap_or((text, "0"));
    let address: Result<std::net::IpAddr, _> = address.parse();
    let length: Result<u8, _> = length.parse();
    match (address, length) {
        (Ok(address), Ok(length)) if length <= if address.is_ipv4() { 32 } else { 128 } => {
            Ok(text.to_owned())
        }
        _ => Err("expected an address or a range, as in 10.0.0.0/8".to_owned()),
    }
}
