//! Where a control plane listens.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::bail;

use crate::kubernetes::daemon::bound_command;
use crate::kubernetes::namespace::Holder;

/// Where a control plane listens.
#[derive(Clone, Debug)]
pub(in crate::kubernetes) enum Place {
    /// The loopback interface of this process's network namespace.
    Loopback,
    /// An address inside held namespaces, which this process reaches through a relay.
    Inside { holder: Arc<Holder>, address: Ipv4Addr, address6: Ipv6Addr },
}

impl Place {
    pub(super) fn bound_command(&self, program: PathBuf) -> Command {
        match self {
            Self::Loopback => bound_command(program),
            Self::Inside { holder, .. } => holder.bound_command(program),
        }
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        match self {
            Self::Loopback => Ipv4Addr::LOCALHOST,
            Self::Inside { address, .. } => *address,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peer: u16,
    pub(super) api_server: u16,
}

impl Ports {
    pub(super) fn choose(place: &Place) -> anyhow::Result<Self> {
        match place {
            Place::Loopback => {
                // Held until all three are chosen, so that they differ.
                let held = [free_port()?, free_port()?, free_port()?];
                let [etcd, etcd_peer, api_server] = held.each_ref().map(|it| it.1);
                Ok(Self { etcd, etcd_peer, api_server })
            }
            // Nobody else is in there.
            Place::Inside { .. } => Ok(Self { etcd: 2379, etcd_peer: 2380, api_server: 6443 }),
        }
    }
}

/// A port that is free now, below the range from which the kernel takes the ports of outgoing
/// connections: while an API server is stopped, none of those may take its port.
fn free_port() -> anyhow::Result<(TcpListener, u16)> {
    for _ in 0..100 {
        let port = rand::random_range(10_240..30_000);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok((listener, port));
        }
    }
    bail!("found no free port on the loopback interface")
}
