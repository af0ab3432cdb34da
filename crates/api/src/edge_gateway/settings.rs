//! An EdgeGateway whose every value was checked.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::grant::{Grant, Namespaces};
use super::rule;
use super::spec::{
    AdoptionSpec, EdgeGateway, EdgeGatewaySpec, GrantSpec, QuotaSpec, SshCarrierSpec,
};
use crate::host::{HostKey, KeyFile, KeySource, NetworkAddress, SecretKeyRef, UserName, read_ip};
use crate::name::ObjectName;
use crate::port::Port;
use crate::problem::Problem;
use crate::rule::Check;

/// What an EdgeGateway is; every value was checked, and the rules between them hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EdgeGatewaySettings {
    /// The name of the EdgeGateway.
    pub name: ObjectName,
    /// Where agents dial it; never empty.
    pub endpoints: Vec<Endpoint>,
    /// The addresses on which it publishes, in order of preference; empty for all that it has.
    pub addresses: Vec<OfferedAddress>,
    /// What carries the tunnel.
    pub carrier: Carrier,
    /// Who may publish what; `None` for everybody everything.
    pub grants: Option<Vec<Grant>>,
    /// Where the one-time secret is by which gateway and cluster get to know each other.
    pub adoption: Option<SecretSource>,
    /// How much traffic the machine may have.
    pub quota: Option<Quota>,
}

/// One way to the machine.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// An address or a name.
    pub host: NetworkAddress,
    /// The port of the tunnel, TCP and UDP.
    pub port: Port,
}

/// An address on which the gateway publishes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OfferedAddress {
    /// The address as the machine has it.
    pub address: IpAddr,
    /// What to announce instead.
    pub advertise: Option<NetworkAddress>,
}

impl OfferedAddress {
    /// What visitors should dial.
    #[must_use]
    pub fn announced(&self) -> String {
        match &self.advertise {
            Some(it) => it.to_string(),
            None => self.address.to_string(),
        }
    }
}

/// What carries the tunnel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Carrier {
    /// QUIC and TLS over TCP, whichever serves better.
    #[default]
    Auto,
    /// QUIC alone.
    Quic,
    /// TLS over TCP alone.
    Tls,
    /// A plain OpenSSH server.
    Ssh(Box<SshCarrier>),
}

/// A plain OpenSSH server that forwards ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SshCarrier {
    /// Its port.
    pub port: Port,
    /// Whom to log in as.
    pub user: UserName,
    /// The key that the server must prove to own.
    pub host_key: HostKey,
    /// Where the private key to log in with is.
    pub key: KeySource,
}

/// Where a secret is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SecretSource {
    /// In a Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key in its data.
        key: String,
    },
    /// In a file beside the agent.
    File(KeyFile),
}

/// How much traffic the machine may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quota {
    /// Bytes in both directions together, from one reset day to the next.
    pub bytes_per_month: u64,
    /// The day of the month on which counting begins anew, 1 to 31.
    pub reset_day: u8,
    /// What happens at the limit.
    pub action: QuotaAction,
}

/// What happens at the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuotaAction {
    /// It is told, no more.
    Warn,
    /// Traffic goes on at this rate.
    Shape {
        /// Bits a second.
        bits_per_second: u64,
    },
    /// New connections are refused.
    Stop,
}

impl EdgeGateway {
    /// Checks the object.
    ///
    /// # Errors
    ///
    /// Returns every problem, in the order of the fields; at least one.
    pub fn settings(&self) -> Result<EdgeGatewaySettings, Vec<Problem>> {
        let mut check = Check::default();
        let spec = &self.spec;
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let name = check.read("metadata.name", name, &rule::OBJECT_NAME);
        let endpoints = check.endpoints(spec);
        let addresses = check.addresses(spec);
        let carrier = check.carrier(spec);
        let grants = spec.grants.as_ref().map(|it| check.grants(it));
        let adoption = spec.adoption.as_ref().and_then(|it| check.adoption(it));
        let quota = spec.quota.as_ref().and_then(|it| check.quota(it));
        // Whatever is missing has left a problem.
        match (name, carrier) {
            (Some(name), Some(carrier)) if check.problems.is_empty() => Ok(EdgeGatewaySettings {
                name,
                endpoints,
                addresses,
                carrier,
                grants,
                adoption,
                quota,
            }),
            _ => Err(check.problems),
        }
    }
}

impl Check {
    fn endpoints(&mut self, spec: &EdgeGatewaySpec) -> Vec<Endpoint> {
        if spec.endpoints.is_empty() {
            let problem = "no agent could dial the gateway";
            self.refuse("spec.endpoints", "", problem, "name at least one endpoint")
        }
        self.at_most("spec.endpoints", spec.endpoints.len(), 16);
        let mut endpoints = Vec::new();
        for (index, endpoint) in spec.endpoints.iter().enumerate() {
            let field = |name| format!("spec.endpoints[{index}].{name}");
            let host = self.read(field("host"), &endpoint.host, &rule::NETWORK_ADDRESS);
            let port = self.port(field("port"), endpoint.port, "leave it out for port 7443");
            endpoints.extend(host.zip(port).map(|(host, port)| Endpoint { host, port }));
        }
        endpoints
    }

    fn addresses(&mut self, spec: &EdgeGatewaySpec) -> Vec<OfferedAddress> {
        self.at_most("spec.addresses", spec.addresses.len(), 256);
        let (mut seen, mut addresses) = (BTreeSet::new(), Vec::new());
        for (index, it) in spec.addresses.iter().enumerate() {
            let field = |name| format!("spec.addresses[{index}].{name}");
            let advertise = it
                .advertise
                .as_ref()
                .and_then(|it| self.read(field("advertise"), it, &rule::NETWORK_ADDRESS));
            match read_ip(&it.address) {
                None => self.break_rule(field("address"), &it.address, &rule::IP_ADDRESS),
                Some(address) if !seen.insert(address) => {
                    self.refuse(field("address"), &it.address, "in the list twice", "leave one out")
                }
                Some(address) => addresses.push(OfferedAddress { address, advertise }),
            }
        }
        addresses
    }

    fn carrier(&mut self, spec: &EdgeGatewaySpec) -> Option<Carrier> {
        let carrier = match spec.carrier.as_str() {
            "auto" => Carrier::Auto,
            "quic" => Carrier::Quic,
            "tls" => Carrier::Tls,
            other => {
                return self.refuse(
                    "spec.carrier",
                    other,
                    "not a carrier of tunnels",
                    "write auto, quic or tls, or leave it out for auto",
                );
            }
        };
        let Some(ssh) = &spec.ssh else { return Some(carrier) };
        if carrier != Carrier::Auto {
            return self.break_rule("spec.carrier", &spec.carrier, &rule::SSH_IS_THE_CARRIER);
        }
        self.ssh_carrier(ssh).map(|it| Carrier::Ssh(Box::new(it)))
    }

    fn ssh_carrier(&mut self, ssh: &SshCarrierSpec) -> Option<SshCarrier> {
        let field = |name| format!("spec.ssh.{name}");
        let port = self.port(field("port"), ssh.port, "leave it out for port 22");
        let user = self.read(field("user"), &ssh.user, &rule::USER);
        let host_key = self.read(field("hostKey"), &ssh.host_key, &rule::HOST_KEY);
        let key = match (&ssh.key_secret_ref, &ssh.key_file) {
            (Some(secret), None) => {
                self.secret("spec.ssh.keySecretRef", secret);
                let SecretKeyRef { namespace, name, key } = secret.clone();
                Some(KeySource::Secret { namespace, name, key })
            }
            (None, Some(file)) => {
                self.read(field("keyFile"), file, &rule::KEY_FILE).map(KeySource::File)
            }
            (Some(_), Some(_)) => {
                self.break_rule("spec.ssh", "keySecretRef, keyFile", &rule::ONE_KEY)
            }
            (None, None) => self.break_rule("spec.ssh", "", &rule::ONE_KEY),
        };
        Some(SshCarrier { port: port?, user: user?, host_key: host_key?, key: key? })
    }

    fn grants(&mut self, grants: &[GrantSpec]) -> Vec<Grant> {
        self.at_most("spec.grants", grants.len(), 32);
        let grants = grants.iter().enumerate().map(|(index, it)| self.grant(index, it));
        grants.collect()
    }

    fn grant(&mut self, index: usize, grant: &GrantSpec) -> Grant {
        let field = |name| format!("spec.grants[{index}].{name}");
        let mut names = BTreeSet::new();
        if grant.namespaces.is_empty() {
            let problem = "the grant is for no namespace";
            self.refuse(field("namespaces"), "", problem, "name namespaces, or write *")
        }
        for (at, name) in grant.namespaces.iter().enumerate() {
            let namespace = name.len() <= 63 && !name.contains('.');
            if name != "*" && !(namespace && name.parse::<ObjectName>().is_ok()) {
                let field = format!("{}[{at}]", field("namespaces"));
                self.break_rule(field, name, &rule::GRANTED_NAMESPACE)
            }
            names.insert(name.clone());
        }
        let namespaces =
            if names.contains("*") { Namespaces::All } else { Namespaces::Listed(names) };
        let ports =
            grant.ports.as_ref().map(|it| self.list(&field("ports"), it, &rule::GRANTED_PORTS));
        let hostnames = grant
            .hostnames
            .as_ref()
            .map(|it| self.list(&field("hostnames"), it, &rule::SERVER_NAME));
        let max_ports = grant.max_ports.and_then(|it| {
            u32::try_from(it).ok().filter(|it| *it <= 65_535).or_else(|| {
                let problem = "not a number between 0 and 65535";
                self.refuse(
                    field("maxPorts"),
                    &it.to_string(),
                    problem,
                    "leave it out for any number",
                )
            })
        });
        Grant { namespaces, ports, hostnames, max_ports }
    }

    fn list<T: std::str::FromStr>(
        &mut self,
        field: &str,
        entries: &[String],
        rule: &rule::Rule,
    ) -> Vec<T> {
        self.at_most(field, entries.len(), 64);
        let entries = entries.iter().enumerate();
        entries.filter_map(|(at, it)| self.read(format!("{field}[{at}]"), it, rule)).collect()
    }

    fn adoption(&mut self, adoption: &AdoptionSpec) -> Option<SecretSource> {
        const FIELD: &str = "spec.adoption";
        match (&adoption.secret_ref, &adoption.secret_file) {
            (Some(secret), None) => {
                let (namespace, name, key) =
                    (secret.namespace.clone(), secret.name.clone(), secret.key.clone());
                let secret = SecretKeyRef { namespace, name, key };
                self.secret("spec.adoption.secretRef", &secret);
                let SecretKeyRef { namespace, name, key } = secret;
                Some(SecretSource::Secret { namespace, name, key })
            }
            (None, Some(file)) => {
                let field = format!("{FIELD}.secretFile");
                self.read(field, file, &rule::KEY_FILE).map(SecretSource::File)
            }
            (Some(_), Some(_)) => {
                self.break_rule(FIELD, "secretRef, secretFile", &rule::ONE_ADOPTION_SECRET)
            }
            (None, None) => self.break_rule(FIELD, "", &rule::ONE_ADOPTION_SECRET),
        }
    }

    fn quota(&mut self, quota: &QuotaSpec) -> Option<Quota> {
        let field = |name| format!("spec.quota.{name}");
        let bytes_per_month = self.positive(field("bytesPerMonth"), quota.bytes_per_month);
        let reset_day = u8::try_from(quota.reset_day).ok().filter(|it| (1..=31).contains(it));
        let reset_day = reset_day.or_else(|| {
            let value = quota.reset_day.to_string();
            let problem = "not a day of the month";
            self.refuse(field("resetDay"), &value, problem, "write a number between 1 and 31")
        });
        let rate = quota.shape_bits_per_second;
        let action = match (quota.action.as_str(), rate) {
            ("warn", None) => Some(QuotaAction::Warn),
            ("stop", None) => Some(QuotaAction::Stop),
            ("shape", Some(rate)) => self
                .positive(field("shapeBitsPerSecond"), rate)
                .map(|bits_per_second| QuotaAction::Shape { bits_per_second }),
            ("shape" | "warn" | "stop", _) => {
                self.break_rule("spec.quota", &quota.action, &rule::SHAPE_NEEDS_A_RATE)
            }
            (other, _) => {
                let problem = "not something to do at the limit";
                self.refuse(field("action"), other, problem, "write warn, shape or stop")
            }
        };
        Some(Quota { bytes_per_month: bytes_per_month?, reset_day: reset_day?, action: action? })
    }

    fn secret(&mut self, field: &str, secret: &SecretKeyRef) {
        for (name, value, rule) in secret.broken() {
            self.break_rule(format!("{field}.{name}"), value, rule)
        }
    }

    fn port(&mut self, field: String, port: i64, remedy: &str) -> Option<Port> {
        u16::try_from(port).ok().and_then(Port::new).or_else(|| {
            self.refuse(field, &port.to_string(), "not a port between 1 and 65535", remedy)
        })
    }

    fn positive(&mut self, field: String, number: i64) -> Option<u64> {
        u64::try_from(number).ok().filter(|it| *it > 0).or_else(|| {
            let problem = "not a number above zero";
            self.refuse(field, &number.to_string(), problem, "write 1 or more")
        })
    }

    fn at_most(&mut self, field: &str, count: usize, limit: usize) {
        if count > limit {
            let problem = format!("the list has more than {limit} entries");
            self.refuse(field, &count.to_string(), problem, "leave some out")
        }
    }
}
