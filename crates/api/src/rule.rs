//! What a schema cannot say: each rule once, for the API server and for us.
//!
//! The API server refuses with the words of a rule; reading the object refuses with the same
//! words, and tests hold the two to the same verdicts. Rules of one kind alone are beside it.

use std::fmt::Display;
use std::str::FromStr;

use schemars::{Schema, json_schema};
use serde_json::{Value, json};

use crate::problem::Problem;

/// A condition that a value must meet.
pub(crate) struct Rule {
    /// The condition in CEL, over `self`.
    pub(crate) cel: &'static str,
    /// What is wrong when it is not met.
    pub(crate) problem: &'static str,
    /// What to do then.
    pub(crate) remedy: &'static str,
}

impl Rule {
    /// The value of `x-kubernetes-validations` that holds only this rule.
    pub(crate) fn validations(&self) -> Value {
        Self::all(&[self])
    }

    /// The value of `x-kubernetes-validations` that holds these rules.
    pub(crate) fn all(rules: &[&Self]) -> Value {
        let rules = rules.iter().map(
            |it| json!({ "rule": it.cel, "message": format!("{}; {}", it.problem, it.remedy) }),
        );
        Value::Array(rules.collect())
    }
}

/// The schema of a text that meets a rule. The length bounds what the rule may cost the API
/// server.
pub(crate) fn text(characters: u32, rule: &Rule) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": characters,
        "x-kubernetes-validations": rule.validations(),
    })
}

/// Gathers problems.
#[derive(Default)]
pub(crate) struct Check {
    pub(crate) problems: Vec<Problem>,
}

impl Check {
    /// Reports a problem and returns a placeholder.
    pub(crate) fn refuse<T: Default>(
        &mut self,
        field: impl Into<String>,
        value: &str,
        problem: impl Display,
        remedy: impl Into<String>,
    ) -> T {
        self.problems.push(Problem::invalid(field, value, problem, remedy));
        T::default()
    }

    /// Reports a value that breaks a rule and returns a placeholder.
    pub(crate) fn break_rule<T: Default>(
        &mut self,
        field: impl Into<String>,
        value: &str,
        rule: &Rule,
    ) -> T {
        self.refuse(field, value, rule.problem, rule.remedy)
    }

    /// Reads a text, or reports that it breaks the rule.
    pub(crate) fn read<T: FromStr>(
        &mut self,
        field: impl Into<String>,
        text: &str,
        rule: &Rule,
    ) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(_) => self.break_rule(field, text, rule),
        }
    }
}

pub(crate) const IP_ADDRESS: Rule = Rule {
    cel: "isIP(self)",
    problem: "not an IP address",
    remedy: "write an address such as 10.8.0.1 or 2001:db8::1, without a prefix length or zone",
};

pub(crate) const SSH_ADDRESS: Rule = Rule {
    cel: "isIP(self) || (self.matches(\
          '^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*\
          [A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$') \
          && !self.matches('(^|[.])[0-9]+$'))",
    problem: "neither an IP address nor a host name",
    remedy: "write it without user and port, such as edge-a.example.com or 2001:db8::1",
};

pub(crate) const USER: Rule = Rule {
    cel: "self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$')",
    problem: "not the name of a user",
    remedy: "use 1 to 32 letters, digits or ._-, beginning with a letter, a digit or _",
};

pub(crate) const HOST_KEY: Rule = Rule {
    cel: "self.matches('^ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42}( [^\\\\n]*)?$')",
    problem: "not an Ed25519 public key as OpenSSH writes it",
    remedy: "copy `ssh-ed25519 AAAA...` from /etc/ssh/ssh_host_ed25519_key.pub on the host",
};

pub(crate) const ONE_KEY: Rule = Rule {
    cel: "has(self.keySecretRef) != has(self.keyFile)",
    problem: "exactly one of keySecretRef and keyFile must be set",
    remedy: "name the Secret or the file that holds the private key",
};

pub(crate) const KEY_FILE: Rule = Rule {
    cel: r"self.startsWith('/') && !self.matches('\\p{Cc}')",
    problem: "not an absolute path",
    remedy: "write the whole path, such as /etc/portcullis/id_ed25519",
};

pub(crate) const NAMESPACE: Rule = Rule {
    cel: "self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')",
    problem: "not the name of a namespace",
    remedy: "use lower case letters, digits and -",
};

pub(crate) const OBJECT_NAME: Rule = Rule {
    cel: "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$')",
    problem: "not the name of an object",
    remedy: "use lower case letters, digits, - and .",
};

pub(crate) const SECRET_KEY: Rule = Rule {
    cel: "self.matches('^[-._A-Za-z0-9]+$')",
    problem: "not a key of a Secret",
    remedy: "use letters, digits and -._, such as ssh-privatekey",
};
