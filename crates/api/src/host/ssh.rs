//! What it takes to reach a host over SSH: names, addresses and keys, checked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use super::rule::{self, Rule};
use super::spec::SecretKeyRef;
use crate::port::Port;
use crate::problem::excerpt;

/// How to reach a host over SSH.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SshSettings {
    /// Where the SSH server is.
    pub address: NetworkAddress,
    /// Its port.
    pub port: Port,
    /// Whom to log in as.
    pub user: UserName,
    /// The key that the host must prove to own.
    pub host_key: HostKey,
    /// Where the private key to log in with is.
    pub key: KeySource,
    /// How commands are run.
    pub mode: SshMode,
    /// Roll a change back unless it is confirmed over a fresh connection within this time.
    pub confirm_within: Option<Duration>,
}

/// How commands are run on a host that is reached over SSH.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum SshMode {
    /// The key may only run `portcullis host-apply`, which takes commands on its input.
    #[default]
    ForcedCommand,
    /// The user may run the packet filter's programs by sudo.
    Sudo,
}

/// Where a private key is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeySource {
    /// In a Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key in its data.
        key: String,
    },
    /// In a file beside the controller.
    File(KeyFile),
}

/// The text is not what the field needs; which field and what remedy, the caller knows.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{value}` is {problem}")]
pub struct ParseSshValueError {
    value: String,
    problem: &'static str,
}

impl ParseSshValueError {
    fn new(value: &str, rule: &Rule) -> Self {
        Self { value: excerpt(value), problem: rule.problem }
    }
}

/// An IP address or a host name (RFC 1123) whose last label is not a number.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NetworkAddress(String);

impl FromStr for NetworkAddress {
    type Err = ParseSshValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = |it: u8| it.is_ascii_alphanumeric() || it == b'-';
        let label = |it: &str| {
            (1..=63).contains(&it.len())
                && it.bytes().all(inner)
                && !it.starts_with('-')
                && !it.ends_with('-')
        };
        let numeric = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
        let name = text.len() <= 253
            && text.split('.').all(label)
            && !text.rsplit('.').next().is_some_and(numeric);
        if name || read_ip(text).is_some() {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseSshValueError::new(text, &rule::SSH_ADDRESS))
    }
}

/// Reads an IP address as the API server's `isIP` does: without a zone, and no IPv4 address
/// dressed as IPv6.
pub(crate) fn read_ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(it) if it.to_ipv4_mapped().is_some() => None,
        IpAddr::V4(_) | IpAddr::V6(_) => Some(address),
    }
}

/// The name of a user on a host.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserName(String);

impl FromStr for UserName {
    type Err = ParseSshValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |it: u8| it.is_ascii_alphanumeric() || b"._-".contains(&it);
        let valid = (1..=32).contains(&text.len()) && text.bytes().all(known);
        // A name that begins with - would be an option on some command line.
        if !valid || text.starts_with(['.', '-']) {
            return Err(ParseSshValueError::new(text, &rule::USER));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The public Ed25519 key of a host (RFC 8709), as OpenSSH writes it but without its comment.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HostKey(String);

impl FromStr for HostKey {
    type Err = ParseSshValueError;

    /// Reads `ssh-ed25519 BASE64 [COMMENT]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The name of the algorithm and the lengths, in base64, are the same in every key; the
        // next character holds two bits of them.
        const BEGINNING: &str = "AAAAC3NzaC1lZDI1NTE5AAAAI";
        let refuse = || ParseSshValueError::new(text, &rule::HOST_KEY);
        let key = text.strip_prefix("ssh-ed25519 ").ok_or_else(refuse)?;
        let (key, comment) = key.split_once(' ').unwrap_or((key, ""));
        let rest = key.strip_prefix(BEGINNING).ok_or_else(refuse)?;
        let base64 = |it: u8| it.is_ascii_alphanumeric() || b"+/".contains(&it);
        let valid = rest.len() == 43
            && rest.bytes().all(base64)
            && rest.starts_with(|it| matches!(it, 'A'..='P'))
            && !comment.contains('\n')
            && text.chars().count() <= 512;
        if valid { Ok(Self(format!("ssh-ed25519 {key}"))) } else { Err(refuse()) }
    }
}

/// The absolute path of a file that holds a private key.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyFile(String);

impl FromStr for KeyFile {
    type Err = ParseSshValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.starts_with('/')
            && text.chars().count() <= 4096
            && !text.contains(char::is_control);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseSshValueError::new(text, &rule::KEY_FILE))
        }
    }
}

impl SecretKeyRef {
    /// The first field that is wrong, with the rule that it breaks.
    pub(crate) fn broken(&self) -> Vec<(&'static str, &str, &'static Rule)> {
        let namespace = self.namespace.len() <= 63
            && !self.namespace.contains('.')
            && is_object_name(&self.namespace);
        let key = (1..=253).contains(&self.key.len())
            && self.key.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
        let fields = [
            ("namespace", &self.namespace, namespace, &rule::NAMESPACE),
            ("name", &self.name, is_object_name(&self.name), &rule::OBJECT_NAME),
            ("key", &self.key, key, &rule::SECRET_KEY),
        ];
        let broken = fields.into_iter().filter(|it| !it.2);
        broken.map(|(field, value, _, rule)| (field, value.as_str(), rule)).collect()
    }
}

fn is_object_name(text: &str) -> bool {
    text.parse::<crate::name::ObjectName>().is_ok()
}

macro_rules! text {
    ($($type:ident),*) => {$(
        impl $type {
            /// The value as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text!(NetworkAddress, UserName, HostKey, KeyFile);
