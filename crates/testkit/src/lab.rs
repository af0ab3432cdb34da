//! A lab: machines that are network namespaces, and wires between them.
//!
//! Every machine has its own network, mount and host name namespaces and a private `/run`. They
//! are kept by one agent process for each machine and have no names anywhere in the system, so
//! two labs never meet and nothing is left behind: an agent whose lab is dropped, has panicked or
//! was killed with SIGKILL sees the end of its standard input, ends every process in its
//! namespace, and exits; the kernel removes the rest.
//!
//! With the right to do so (root) the namespaces are plain. Without it the lab lives in a user
//! namespace of its own, where the caller is root over the machines of this lab and nothing else.
//! What is different there:
//!
//! - Only one user exists. Programs that switch to another (sshd, `useradd`) cannot run.
//! - One nft transaction is limited by `net.core.wmem_max` of the host (`Message too long`
//!   from nft), because a larger buffer needs `CAP_NET_ADMIN` in the first user namespace.
//! - [`Machine::enter`] is not available: a process with threads cannot enter a user namespace.
//!   [`Machine::command`] and the probes are, because they are processes of their own.
//!
//! To look around in the machines of a failing test, set `HOLD_LAB=1`: the lab of a test that
//! panics then stays until Enter is pressed, and the commands to enter its machines are printed.

mod agent;
mod daemon;
mod machine;
mod network;
mod settings;

use std::fmt;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::requirement::{self, Missing};
pub(crate) use agent::Agent;
pub use agent::agent_program;
pub use daemon::Daemon;
pub use machine::{Machine, Output};
pub use network::Network;
pub use settings::{BlackHole, ReversePath};

/// Machines and the wires between them, for one test. Dropping it removes everything.
pub struct Lab {
    name: String,
    /// Owns the user namespace, if there is one, and the bridges of [`Network`]s.
    wiring: Machine,
    machines: Mutex<Vec<Machine>>,
}

impl Lab {
    /// Opens an empty lab: plain namespaces where that is allowed, else a user namespace.
    ///
    /// The name is for messages; it does not have to be unique.
    ///
    /// # Errors
    ///
    /// Says what this machine lacks. Give the result to [`crate::require`].
    pub fn new(name: &str) -> Result<Self, Missing> {
        Self::open(name, "own-else-new")
    }

    /// Opens an empty lab in a user namespace, even when the caller could do without.
    ///
    /// # Errors
    ///
    /// Says what this machine lacks.
    pub fn in_user_namespace(name: &str) -> Result<Self, Missing> {
        Self::open(name, "new")
    }

    /// Opens an empty lab with plain namespaces, as the programs need that switch users.
    ///
    /// # Errors
    ///
    /// Says what this machine lacks.
    pub fn as_root(name: &str) -> Result<Self, Missing> {
        Self::open(name, "own")
    }

    fn open(name: &str, owner: &str) -> Result<Self, Missing> {
        requirement::program("ip", "iproute2")?;
        let agent = Agent::start("wiring", owner).map_err(|reason| {
            Missing::new(
                format!("a network namespace cannot be made: {reason:#}"),
                if owner == "own" {
                    "run as root"
                } else {
                    "run as root, or allow user namespaces (sysctl user.max_user_namespaces, \
                     kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
                },
            )
        })?;
        let wiring = Machine::new("wiring", agent);
        // Frames on a wire are nobody's packets: no filter, no addresses. The first setting exists
        // only where the kernel can filter bridged frames at all.
        for family in ["iptables", "ip6tables"] {
            let _not_there = wiring.sysctl(&format!("bridge/bridge-nf-call-{family}"), "0");
        }
        for which in ["all", "default"] {
            let _no_ipv6 = wiring.sysctl(&format!("ipv6/conf/{which}/disable_ipv6"), "1");
        }
        Ok(Self { name: name.to_owned(), wiring, machines: Mutex::default() })
    }

    /// The name that the lab was opened with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the lab lives in a user namespace of its own.
    #[must_use]
    pub fn is_in_user_namespace(&self) -> bool {
        self.wiring.agent().user
    }

    /// Adds a machine with nothing but a loopback interface. The name is also its host name.
    ///
    /// It does not forward, does not filter by reverse path, takes no router advertisements, and
    /// its IPv6 addresses can be used at once (no duplicate address detection).
    ///
    /// # Errors
    ///
    /// When its namespaces cannot be made.
    pub fn machine(&self, name: &str) -> anyhow::Result<Machine> {
        let owner = if self.is_in_user_namespace() {
            self.wiring.pid().to_string()
        } else {
            "own".to_owned()
        };
        let agent = Agent::start(name, &owner)
            .with_context(|| format!("machine `{name}` of lab `{}`", self.name))?;
        let machine = Machine::new(name, agent);
        machine.initialise()?;
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).push(machine.clone());
        Ok(machine)
    }

    /// Joins two machines with a cable (a veth pair) and gives each end its addresses, written
    /// with prefix length (`10.0.0.1/24`, `fd00::1/64`).
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn link(
        &self,
        a: &Machine,
        a_interface: &str,
        a_addresses: &[&str],
        b: &Machine,
        b_interface: &str,
        b_addresses: &[&str],
    ) -> anyhow::Result<()> {
        a.ip_batch(&format!(
            "{}{}",
            settings::veth(a_interface, b_interface, b),
            settings::up_with_addresses(a_interface, a_addresses),
        ))?;
        b.ip_batch(&settings::up_with_addresses(b_interface, b_addresses))?;
        a.wait_for_carrier(a_interface)?;
        b.wait_for_carrier(b_interface)
    }

    /// Adds a network: a switch that any number of machines can be plugged into.
    ///
    /// # Errors
    ///
    /// What `ip` said.
    pub fn network(&self, name: &str) -> anyhow::Result<Network> {
        Network::new(name, self.wiring.clone())
    }

    /// Lets the machines live on after this process, until each agent is sent SIGTERM. The
    /// returned machines' names and agents' process ids are all that is left to find them by.
    ///
    /// # Errors
    ///
    /// When an agent does not answer; the lab is then removed as usual.
    pub fn detach(self) -> anyhow::Result<Vec<(String, u32)>> {
        let mut kept: Vec<(String, u32)> = Vec::new();
        for machine in self.everything() {
            if let Err(error) = machine.agent().detach() {
                for pid in kept.iter().filter_map(|(_, pid)| i32::try_from(*pid).ok()) {
                    let _already_gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
                return Err(error);
            }
            kept.push((machine.name().to_owned(), machine.pid()));
        }
        Ok(kept)
    }

    fn everything(&self) -> Vec<Machine> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.iter().cloned().chain([self.wiring.clone()]).collect()
    }
}

/// How to enter each machine by hand, one line for each.
impl fmt::Display for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(f, "lab {}", self.name)?;
        for machine in machines.iter() {
            writeln!(f, "  {:<12} {}", machine.name(), machine.enter_by_hand())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("HOLD_LAB").is_some_and(|it| it == "1") {
            let _nobody_listens =
                write!(std::io::stderr(), "held by HOLD_LAB=1, press Enter to remove it:\n{self}");
            let _at_once = std::io::stdin().read_line(&mut String::new());
        }
        let everything = self.everything();
        // First all ends are closed, then all exits awaited: the agents clean up side by side.
        for machine in &everything {
            machine.agent().close();
        }
        for machine in &everything {
            machine.agent().wait();
        }
    }
}

/// Shared by all handles of a machine.
type Shared<T> = Arc<T>;
