//! What a schema cannot say about a Host: each rule once, for the API server and for us.
//!
//! The API server refuses with the words of a rule; [`super::Host::settings`] refuses with the
//! same words, and a test holds the two to the same verdicts.

use serde_json::{Value, json};

/// A condition that a value must meet.
pub(super) struct Rule {
    /// The condition in CEL, over `self`.
    cel: &'static str,
    /// What is wrong when it is not met.
    pub(super) problem: &'static str,
    /// What to do then.
    pub(super) remedy: &'static str,
}

impl Rule {
    /// The value of `x-kubernetes-validations` that holds only this rule.
    pub(super) fn validations(&self) -> Value {
        Self::all(&[self])
    }

    /// The value of `x-kubernetes-validations` that holds these rules.
    pub(super) fn all(rules: &[&Self]) -> Value {
        let rules = rules.iter().map(
            |it| json!({ "rule": it.cel, "message": format!("{}; {}", it.problem, it.remedy) }),
        );
        Value::Array(rules.collect())
    }
}

pub(super) const INTERFACE: Rule = Rule {
    cel: "self.matches('^[A-Za-z0-9_.:@-]{1,15}$') && self != '.' && self != '..'",
    problem: "not the name of an interface",
    remedy: "use 1 to 15 letters, digits or -_.:@, as `ip link` shows it",
};

pub(super) const EXTERNAL_IS_LISTED: Rule = Rule {
    cel: "!has(self.externalInterface) || self.externalInterface in self.interfaces",
    problem: "externalInterface is not one of interfaces",
    remedy: "add it to interfaces",
};

pub(super) const EXTRA_NEEDS_EXTERNAL: Rule = Rule {
    cel: "!has(self.extraInternalAddresses) || size(self.extraInternalAddresses) == 0 || \
          has(self.externalInterface)",
    problem: "extraInternalAddresses has no meaning without externalInterface",
    remedy: "set externalInterface, or remove extraInternalAddresses: every local address counts",
};

pub(super) const IP_ADDRESS: Rule = Rule {
    cel: "isIP(self)",
    problem: "not an IP address",
    remedy: "write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone",
};

pub(super) const ONE_EXECUTOR: Rule = Rule {
    cel: "has(self.local) != has(self.ssh)",
    problem: "exactly one of local and ssh must be set",
    remedy: "write local: {} when the controller runs on the host, ssh otherwise",
};

pub(super) const SSH_ADDRESS: Rule = Rule {
    cel: "isIP(self) || (self.matches(\
          '^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*\
          [A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$') \
          && !self.matches('(^|[.])[0-9]+$'))",
    problem: "neither an IP address nor a host name",
    remedy: "write it without user and port, such as edge-a.example.com or 2001:db8::1",
};

pub(super) const USER: Rule = Rule {
    cel: "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$')",
    problem: "not the name of a user",
    remedy: "use 1 to 32 letters, digits or ._-, beginning with a letter, a digit or _",
};

pub(super) const HOST_KEY: Rule = Rule {
    cel: "self.matches('^ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}( [^\\\\n]*)?$')",
    problem: "not an Ed25519 public key as OpenSSH writes it",
    remedy: "copy `ssh-ed25519 AAAA...` from /etc/ssh/ssh_host_ed25519_key.pub on the host",
};

pub(super) const ONE_KEY: Rule = Rule {
    cel: "has(self.keySecretRef) != has(self.keyFile)",
    problem: "exactly one of keySecretRef and keyFile must be set",
    remedy: "name the Secret or the file that holds the private key",
};

pub(super) const KEY_FILE: Rule = Rule {
    cel: r"self.startsWith('/') && !self.matches('\\p{Cc}')",
    problem: "not an absolute path",
    remedy: "write the whole path, such as /etc/portcullis/id_ed25519",
};

pub(super) const NAMESPACE: Rule = Rule {
    cel: "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')",
    problem: "not the name of a namespace",
    remedy: "use lower case letters, digits and -",
};

pub(super) const OBJECT_NAME: Rule = Rule {
    cel: "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",
    problem: "not the name of an object",
    remedy: "use lower case letters, digits, - and .",
};

pub(super) const SECRET_KEY: Rule = Rule {
    cel: "self.matches('^[-._A-Za-z0-9]+$')",
    problem: "not a key of a Secret",
    remedy: "use letters, digits and -._, such as ssh-privatekey",
};
