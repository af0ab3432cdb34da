//! What agents may not, or cannot, connect to.

use std::net::IpAddr;

use super::{Key, PublishView};

impl PublishView {
    /// From now on nothing leads to programs on the agent's own machine
    /// (`portcullis.dev/target: host`): whoever may annotate a Service could publish what the
    /// machine keeps to itself.
    pub fn refuse_own_host(&mut self) {
        self.version += u64::from(!self.own_host_refused);
        self.own_host_refused = true;
    }

    /// Whether programs on the agent's own machine are out of reach.
    pub(crate) fn refuses_own_host(&self) -> bool {
        self.own_host_refused
    }

    /// Addresses of a Service's endpoints that no endpoint may have, and that are left out.
    pub(crate) fn left_out(&self, service: &Key) -> Vec<IpAddr> {
        self.slices.left_out(service)
    }
}
