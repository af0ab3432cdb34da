//! What a schema cannot say about an EdgeGateway, beside what it cannot say about anything.

pub(super) use crate::rule::{
    HOST_KEY, IP_ADDRESS, KEY_FILE, NAMESPACE, OBJECT_NAME, ONE_KEY, Rule, SECRET_KEY,
    SSH_ADDRESS as NETWORK_ADDRESS, USER, text,
};

pub(super) const SSH_IS_THE_CARRIER: Rule = Rule {
    cel: "!has(self.ssh) || self.carrier == 'auto'",
    problem: "carrier and ssh together name two carriers",
    remedy: "remove one of the two",
};

pub(super) const ONE_ADOPTION_SECRET: Rule = Rule {
    cel: "has(self.secretRef) != has(self.secretFile)",
    problem: "exactly one of secretRef and secretFile must be set",
    remedy: "name the Secret or the file that holds the one-time secret",
};

pub(super) const SHAPE_NEEDS_A_RATE: Rule = Rule {
    cel: "(self.action == 'shape') == has(self.shapeBitsPerSecond)",
    problem: "shapeBitsPerSecond belongs to action shape, and to it alone",
    remedy: "set both, or neither",
};

pub(super) const GRANTED_NAMESPACE: Rule = Rule {
    cel: "self == '*' || self.matches('^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$')",
    problem: "not the name of a namespace",
    remedy: "use lower case letters, digits and -, or * for every namespace",
};

pub(super) const GRANTED_PORTS: Rule = Rule {
    cel: "self == '*' || self.matches('^[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp))?$')",
    problem: "not a port or a range of ports",
    remedy: "write entries such as 443, 53/udp, 8000-8100 or *; without a protocol TCP is meant",
};

pub(super) const SERVER_NAME: Rule = Rule {
    cel: "self == '*' || (self.matches(\
          '^([*][.])?([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?[.])*\
          [A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$') \
          && !self.matches('(^|[.])[0-9]+$'))",
    problem: "not a host name",
    remedy: "write www.example.com, *.example.com, or * for every name",
};
