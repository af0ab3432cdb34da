//! What gateways report about the places that objects got.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use tunnel_proto::message::{self, PortReport, PortState, Reached};

use super::GatewayObserved;
use crate::publish::attachment::{Attachments, Got, GotPlace};
use crate::publish::backend::on_the_wire;
use crate::publish::verdict::Verdict;

/// What gateways report about places.
pub(super) struct Live<'a> {
    attachments: &'a Attachments,
    gateways: BTreeMap<&'a str, Gateway<'a>>,
}

struct Gateway<'a> {
    connected: bool,
    ports: BTreeMap<(Option<IpAddr>, message::Protocol, u16), &'a PortReport>,
}

impl<'a> Gateway<'a> {
    fn port(&self, place: &GotPlace) -> Option<&'a PortReport> {
        let key = (place.address, on_the_wire(place.protocol), place.port.get());
        self.ports.get(&key).copied()
    }

    /// Whether visitors do not even get as far as the gateway's program. What they meet behind it
    /// is told by conditions, and takes no address away: it may be one backend of many.
    fn lets_nobody_in(&self, place: &GotPlace) -> bool {
        let probed = self.port(place).and_then(|it| it.probed.as_ref());
        probed.is_some_and(|it| match it.reached {
            Reached::NotBound(_) | Reached::Filtered(_) => true,
            Reached::Backend(_) | Reached::NoLink | Reached::Agent(_) | Reached::Endpoint(_) => {
                false
            }
        })
    }
}

/// What is true of one place now.
enum Now {
    Listening,
    /// Not yet known, and why.
    Pending(String),
    /// The gateway said no: reason and sentence.
    Refused(&'static str, String),
}

impl<'a> Live<'a> {
    pub(super) fn new(
        attachments: &'a Attachments,
        observed: &'a BTreeMap<String, GatewayObserved>,
    ) -> Self {
        let gateway = |(name, it): (&'a String, &'a GatewayObserved)| {
            let ports =
                it.report.as_ref().filter(|_| it.connected).into_iter().flat_map(|it| &it.ports);
            let ports = ports.map(|it| ((it.address, it.protocol, it.port), it)).collect();
            (name.as_str(), Gateway { connected: it.connected, ports })
        };
        Self { attachments, gateways: observed.iter().map(gateway).collect() }
    }

    fn now(&self, place: &GotPlace) -> Now {
        let edge = &place.edge;
        let Some(gateway) = self.gateways.get(edge.as_str()).filter(|it| it.connected) else {
            return Now::Pending(format!("no agent is connected to gateway {edge}"));
        };
        let port = format!("{}/{}", place.port, place.protocol);
        match gateway.port(place).map(|it| &it.state) {
            None => Now::Pending(format!("gateway {edge} does not tell about {port} yet")),
            Some(PortState::Listening) => Now::Listening,
            Some(PortState::NotGranted(why)) => Now::Refused(
                "NotGranted",
                format!("gateway {edge} does not grant {port} to this cluster: {why}"),
            ),
            Some(PortState::InUse(who)) => Now::Refused(
                "PortUnavailable",
                format!("{port} is in use on gateway {edge}: {who}"),
            ),
            Some(PortState::Failed(why)) => Now::Refused(
                "PortUnavailable",
                format!("gateway {edge} cannot listen on {port}: {why}"),
            ),
        }
    }

    /// Whether an object is published anywhere, in the words of `yes`; and whether it is published
    /// everywhere that it asked for.
    pub(super) fn published(
        &self,
        got: &Got,
        has_edges: bool,
        yes: &'static str,
    ) -> (Verdict, bool) {
        let (mut listening, mut refused, mut pending) = (false, Vec::new(), Vec::new());
        for place in &got.places {
            match self.now(place) {
                Now::Listening => listening = true,
                Now::Refused(reason, sentence) => refused.push((reason, sentence)),
                Now::Pending(sentence) => pending.push(sentence),
            }
        }
        refused.extend(got.losses.iter().cloned());
        let first = refused.first().map(|it| it.0);
        let complete = refused.is_empty() && pending.is_empty() && listening;
        let mut sentences: Vec<_> = refused.into_iter().map(|it| it.1).chain(pending).collect();
        let mut seen = BTreeSet::new();
        sentences.retain(|it| seen.insert(it.clone()));
        let message = sentences.join("; ");
        let verdict = match (listening, first, has_edges) {
            (true, _, _) => Verdict::yes(yes).with(message),
            (false, Some(reason), _) => Verdict::no(reason, message),
            (false, None, false) => Verdict::no(
                "NoGateway",
                "there is no EdgeGateway for it; create one with portcullis gateway create",
            ),
            (false, None, true) if message.is_empty() => {
                Verdict::no("Pending", "none of its EdgeGateways can be understood")
            }
            (false, None, true) => Verdict::no("Pending", message),
        };
        (verdict, complete)
    }

    /// What visitors should dial: for each gateway that is connected and that listens on at least
    /// one of the places, each address that it does so on and that lets visitors in. None twice.
    pub(super) fn addresses<'b>(&self, places: impl Iterator<Item = &'b GotPlace>) -> Vec<String> {
        let mut addresses = Vec::new();
        let mut ordered: Vec<_> = places.collect();
        ordered.sort_unstable();
        for place in ordered {
            let Some(gateway) = self.gateways.get(place.edge.as_str()) else { continue };
            if gateway.lets_nobody_in(place) || !matches!(self.now(place), Now::Listening) {
                continue;
            }
            let edge = self.attachments.edges.get(&place.edge);
            let announced = edge.and_then(|it| it.announced.get(&place.address));
            for address in announced.into_iter().flatten() {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
        }
        addresses
    }
}
