//! What a schema cannot say about a Host, beside what it cannot say about anything.

pub(super) use crate::rule::{
    HOST_KEY, IP_ADDRESS, KEY_FILE, NAMESPACE, OBJECT_NAME, ONE_KEY, Rule, SECRET_KEY, SSH_ADDRESS,
    USER, text,
};

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

pub(super) const ONE_EXECUTOR: Rule = Rule {
    cel: "has(self.local) != has(self.ssh)",
    problem: "exactly one of local and ssh must be set",
    remedy: "write local: {} when the controller runs on the host, ssh otherwise",
};
