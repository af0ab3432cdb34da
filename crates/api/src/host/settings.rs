//! A Host whose every value was checked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::rule;
use super::spec::{Host, HostSpec, SshSpec};
use super::ssh::{KeySource, SshMode, SshSettings, read_ip};
use crate::interface::InterfaceName;
use crate::name::ObjectName;
use crate::port::Port;
use crate::problem::Problem;
use crate::rule::Check;

/// What a Host should do; every value was checked, and the rules between them hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostSettings {
    /// The name of the Host.
    pub name: ObjectName,
    /// The interfaces through which forwards are reachable, the external one included; never
    /// empty.
    pub interfaces: BTreeSet<InterfaceName>,
    /// The interface that internal forwards are not reachable through; one of `interfaces`.
    pub external_interface: Option<InterfaceName>,
    /// Further destination addresses; empty without an external interface.
    pub extra_internal_addresses: BTreeSet<IpAddr>,
    /// The packet filter to program.
    pub backend: Backend,
    /// Accept forwarded connections in the forward hook.
    pub accept_forwarded: bool,
    /// Give forwarded connections the host's own address as their source.
    pub masquerade: bool,
    /// Let targets reach host ports that lead back into their own network.
    pub hairpin: bool,
    /// How to run commands on it.
    pub executor: Executor,
}

/// The packet filter of a host.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Backend {
    /// An own table of nftables.
    #[default]
    Nftables,
    /// Own chains of iptables.
    Iptables,
}

/// How to run commands on a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Executor {
    /// The controller runs on the host itself.
    Local,
    /// Over SSH.
    Ssh(Box<SshSettings>),
}

impl Host {
    /// Checks the object.
    ///
    /// # Errors
    ///
    /// Returns every problem, in the order of the fields; at least one.
    pub fn settings(&self) -> Result<HostSettings, Vec<Problem>> {
        let mut check = Check::default();
        let spec = &self.spec;
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let name = check.read("metadata.name", name, &rule::OBJECT_NAME);
        let interfaces = check.interfaces(spec);
        let external_interface = check.external_interface(spec);
        let extra_internal_addresses = check.extra_internal_addresses(spec);
        let backend = match spec.backend.as_str() {
            "nftables" => Backend::Nftables,
            "iptables" => Backend::Iptables,
            other => check.refuse(
                "spec.backend",
                other,
                "not a packet filter that can be programmed",
                "write nftables or iptables",
            ),
        };
        let executor = check.executor(spec);
        // Whatever is missing has left a problem.
        match (name, executor) {
            (Some(name), Some(executor)) if check.problems.is_empty() => Ok(HostSettings {
                name,
                interfaces,
                external_interface,
                extra_internal_addresses,
                backend,
                accept_forwarded: spec.accept_forwarded,
                masquerade: spec.masquerade,
                hairpin: spec.hairpin,
                executor,
            }),
            _ => Err(check.problems),
        }
    }
}

impl Check {
    fn interfaces(&mut self, spec: &HostSpec) -> BTreeSet<InterfaceName> {
        let mut interfaces = BTreeSet::new();
        if spec.interfaces.is_empty() {
            let problem = "no forward would be reachable";
            self.refuse("spec.interfaces", "", problem, "name at least one interface")
        }
        self.at_most_64("spec.interfaces", spec.interfaces.len());
        for (index, text) in spec.interfaces.iter().enumerate() {
            let field = format!("spec.interfaces[{index}]");
            let Some(name) = self.read(field.as_str(), text, &rule::INTERFACE) else { continue };
            if !interfaces.insert(name) {
                self.refuse(field, text, "in the list twice", "leave one out")
            }
        }
        interfaces
    }

    fn external_interface(&mut self, spec: &HostSpec) -> Option<InterfaceName> {
        let text = spec.external_interface.as_ref()?;
        if !spec.interfaces.contains(text) {
            return self.break_rule("spec.externalInterface", text, &rule::EXTERNAL_IS_LISTED);
        }
        // When it cannot be read, that was reported for the list.
        text.parse().ok()
    }

    fn extra_internal_addresses(&mut self, spec: &HostSpec) -> BTreeSet<IpAddr> {
        const FIELD: &str = "spec.extraInternalAddresses";
        let mut addresses = BTreeSet::new();
        self.at_most_64(FIELD, spec.extra_internal_addresses.len());
        for (index, text) in spec.extra_internal_addresses.iter().enumerate() {
            match read_ip(text) {
                Some(address) => drop(addresses.insert(address)),
                None => self.break_rule(format!("{FIELD}[{index}]"), text, &rule::IP_ADDRESS),
            }
        }
        if let (Some(first), None) =
            (spec.extra_internal_addresses.first(), &spec.external_interface)
        {
            self.break_rule(FIELD, first, &rule::EXTRA_NEEDS_EXTERNAL)
        }
        addresses
    }

    fn executor(&mut self, spec: &HostSpec) -> Option<Executor> {
        match (&spec.executor.local, &spec.executor.ssh) {
            (Some(_), None) => Some(Executor::Local),
            (None, Some(ssh)) => self.ssh(ssh).map(|it| Executor::Ssh(Box::new(it))),
            (Some(_), Some(_)) => {
                self.break_rule("spec.executor", "local, ssh", &rule::ONE_EXECUTOR)
            }
            (None, None) => self.break_rule("spec.executor", "", &rule::ONE_EXECUTOR),
        }
    }

    fn ssh(&mut self, ssh: &SshSpec) -> Option<SshSettings> {
        const SECONDS: &str = "not a number of seconds between 1 and 600";
        let field = |name| format!("spec.executor.ssh.{name}");
        let address = self.read(field("address"), &ssh.address, &rule::SSH_ADDRESS);
        let port = u16::try_from(ssh.port).ok().and_then(Port::new).or_else(|| {
            let problem = "not a port between 1 and 65535";
            self.refuse(field("port"), &ssh.port.to_string(), problem, "leave it out for port 22")
        });
        let user = self.read(field("user"), &ssh.user, &rule::USER);
        let host_key = self.read(field("hostKey"), &ssh.host_key, &rule::HOST_KEY);
        let key = self.key(ssh);
        let mode = match ssh.mode.as_str() {
            "forcedCommand" => SshMode::ForcedCommand,
            "sudo" => SshMode::Sudo,
            other => {
                let problem = "not a way to run commands";
                self.refuse(field("mode"), other, problem, "write forcedCommand or sudo")
            }
        };
        let confirm_within = ssh.confirm_seconds.and_then(|seconds| {
            let valid = u64::try_from(seconds).ok().filter(|it| (1..=600).contains(it));
            valid.map(Duration::from_secs).or_else(|| {
                let value = seconds.to_string();
                self.refuse(
                    field("confirmSeconds"),
                    &value,
                    SECONDS,
                    "leave it out to never roll back",
                )
            })
        });
        Some(SshSettings {
            address: address?,
            port: port?,
            user: user?,
            host_key: host_key?,
            key: key?,
            mode,
            confirm_within,
        })
    }

    fn key(&mut self, ssh: &SshSpec) -> Option<KeySource> {
        const FIELD: &str = "spec.executor.ssh";
        match (&ssh.key_secret_ref, &ssh.key_file) {
            (Some(secret), None) => {
                for (name, value, rule) in secret.broken() {
                    self.break_rule(format!("{FIELD}.keySecretRef.{name}"), value, rule)
                }
                Some(KeySource::Secret {
                    namespace: secret.namespace.clone(),
                    name: secret.name.clone(),
                    key: secret.key.clone(),
                })
            }
            (None, Some(file)) => {
                self.read(format!("{FIELD}.keyFile"), file, &rule::KEY_FILE).map(KeySource::File)
            }
            (Some(_), Some(_)) => self.break_rule(FIELD, "keySecretRef, keyFile", &rule::ONE_KEY),
            (None, None) => self.break_rule(FIELD, "", &rule::ONE_KEY),
        }
    }

    fn at_most_64(&mut self, field: &str, count: usize) {
        if count > 64 {
            let problem = "the list has more than 64 entries";
            self.refuse(field, &count.to_string(), problem, "leave some out")
        }
    }
}
