//! What every gateway shall listen on, and who answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use api::object::ObjectRef;
use tunnel_proto::message::{Protocol, PublishedPort, Route};

use super::attachment::Attachments;
use crate::finding::Finding;

/// What every gateway shall listen on, who answers, and what users got wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// By the name of the EdgeGateway: every one that could ever be understood, also those that
    /// nothing is published on. The ports are in the order that a gateway wants.
    pub gateways: BTreeMap<String, Vec<PublishedPort>>,
    /// Who answers, by the keys that the ports name.
    pub backends: BTreeMap<String, Backend>,
    /// What users got wrong or should know; in order, none twice.
    pub findings: Vec<Finding>,
    /// What became of each object, for its status.
    pub attachments: Attachments,
}

impl Publication {
    /// [`Route::NOBODY`]: never among [`backends`](Self::backends), so that no agent serves it.
    pub const NOBODY: &'static str = Route::NOBODY;

    /// Drops backends that no port leads to: agents need not look after them.
    pub(super) fn keep_only_led_to(&mut self) {
        let ports = self.gateways.values().flatten();
        let led: BTreeSet<&str> = ports
            .flat_map(|it| match &it.route {
                Route::Backend(key) => vec![key.as_str()],
                Route::ServerName(names) => names.iter().map(|it| it.backend.as_str()).collect(),
                Route::Nowhere => Vec::new(),
            })
            .collect();
        self.backends.retain(|key, _| led.contains(key.as_str()));
    }
}

/// Who answers the flows of one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// The transport, from visitor to endpoint.
    pub protocol: Protocol,
    /// Each flow takes one, by weight: at random, `weight / sum of weights`. With no alternative,
    /// or with weights of 0 alone, every flow is refused.
    pub alternatives: Vec<Alternative>,
    /// How TLS ends before the endpoint; `None` leaves the bytes as they are.
    pub tls: Option<TlsEnd>,
}

/// How TLS ends: endpoints get what was inside.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TlsEnd {
    /// The Secrets with the certificates, the preferred one first; never empty.
    pub certificates: Vec<ObjectRef>,
    /// Whether what is inside is HTTP/1.1, for visitors who ask what it is (ALPN, RFC 7301).
    pub http: bool,
}

/// One of several who may answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alternative {
    /// Its share of the flows; 0 means none.
    pub weight: u32,
    /// Where its flows go.
    pub target: Target,
    /// How it learns who the visitor is.
    pub client_address: ClientAddress,
    /// Whether an endpoint on the agent's own node should be taken if there is one
    /// (`externalTrafficPolicy: Local`).
    pub prefer_local: bool,
    /// Whether a visitor's address should lead to the same endpoint each time
    /// (`sessionAffinity: ClientIP`).
    pub affinity: bool,
}

/// Where flows go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// To one of these endpoints of a Service, in ascending order; without any, they are refused.
    Endpoints(Vec<Endpoint>),
    /// To this address on the agent's own machine: a program on the host's network, such as an
    /// ingress controller.
    OwnHost(SocketAddr),
    /// Nowhere: they keep their share of the weight and are refused
    /// ([`RefusedReason::InvalidBackend`](tunnel_proto::message::RefusedReason::InvalidBackend)).
    Invalid(
        /// Why, for people.
        String,
    ),
}

/// One endpoint of a Service.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The node that it runs on, if that is known.
    pub node: Option<String>,
    /// Whether it is ready. One that is not is on its way out and still serves: it is only for
    /// when none is ready (`serving` and `terminating` of its EndpointSlice).
    pub ready: bool,
}

/// How a backend learns who the visitor is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum ClientAddress {
    /// It does not: connections come from the agent.
    #[default]
    Hidden,
    /// By a header of the PROXY protocol, version 1, before the first byte.
    ProxyV1,
    /// By a header of the PROXY protocol, version 2: before the first byte, or at the front of the
    /// first datagram.
    ProxyV2,
    /// Connections come from the visitor's own address.
    Transparent,
}

impl ClientAddress {
    /// As annotations have it; empty for [`Hidden`](Self::Hidden).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "",
            Self::ProxyV1 => "proxy-v1",
            Self::ProxyV2 => "proxy-v2",
            Self::Transparent => "transparent",
        }
    }
}
