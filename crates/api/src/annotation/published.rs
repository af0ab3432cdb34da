//! What the annotations of Services, Gateways, ListenerSets and routes ask of gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::gateway_ports::GatewayPorts;
use super::vocabulary::Vocabulary;
use super::{Reading, key};
use crate::name::ObjectName;
use crate::object::ObjectKind;
use crate::port::Port;
use crate::server_name::ServerName;
use crate::source_range::SourceRanges;

/// What the annotations of one object ask of gateways.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PublishWish {
    /// On which gateways; `None` when no annotation speaks of them.
    pub gateways: Option<Gateways>,
    /// The public ports; `None` for the Service's own.
    pub ports: Option<GatewayPorts>,
    /// The server names by which TCP ports are shared with others; `None` for whole ports, never
    /// empty.
    pub hostnames: Option<BTreeSet<ServerName>>,
    /// How backends learn who the visitor is.
    pub client_address: ClientAddresses,
    /// Who may connect; `None` for everyone.
    pub sources: Option<SourceRanges>,
    /// New connections a second from one source; `None` for any number.
    pub max_new_per_second: Option<NonZeroU32>,
    /// Connections of one source at one time; `None` for any number.
    pub max_open: Option<NonZeroU32>,
    /// Whether the target ports are those of the agent's own machine.
    pub on_host: bool,
}

/// Some gateways.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Gateways {
    /// Every one.
    All,
    /// Those of these names; never empty.
    Listed(BTreeSet<ObjectName>),
}

/// How backends learn who the visitor is, port by port.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientAddresses {
    /// At ports that are not in `ports`; `None` when no annotation speaks of them.
    pub everywhere: Option<ClientAddress>,
    /// At single public ports.
    pub ports: BTreeMap<Port, ClientAddress>,
}

impl ClientAddresses {
    /// How they learn it at one public port; `None` when no annotation speaks of it.
    #[must_use]
    pub fn at(&self, port: Port) -> Option<ClientAddress> {
        self.ports.get(&port).copied().or(self.everywhere)
    }
}

/// How a backend learns who the visitor is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ClientAddress {
    /// By a header of the PROXY protocol, version 1.
    ProxyV1,
    /// By a header of the PROXY protocol, version 2.
    ProxyV2,
    /// Connections come from the visitor's own address.
    Transparent,
}

/// What a Service may have.
const OF_SERVICE: [&str; 9] = [
    key::GATEWAY,
    key::GATEWAY_PORTS,
    key::HOSTNAMES,
    key::PROXY_PROTOCOL,
    key::CLIENT_ADDRESS,
    key::ALLOW_FROM,
    key::MAX_NEW_PER_SECOND,
    key::MAX_OPEN,
    key::TARGET,
];

/// What a Gateway may have.
const OF_GATEWAY: [&str; 6] = [
    key::GATEWAY,
    key::ALLOW_FROM,
    key::MAX_NEW_PER_SECOND,
    key::MAX_OPEN,
    key::PROXY_PROTOCOL,
    key::CLIENT_ADDRESS,
];

/// What a ListenerSet may have: its Gateway says on which gateways.
const OF_LISTENER_SET: [&str; 5] = [
    key::ALLOW_FROM,
    key::MAX_NEW_PER_SECOND,
    key::MAX_OPEN,
    key::PROXY_PROTOCOL,
    key::CLIENT_ADDRESS,
];

/// What a route may have.
const OF_ROUTE: [&str; 2] = [key::PROXY_PROTOCOL, key::CLIENT_ADDRESS];

/// Reads the annotations of a Service, a Gateway, a ListenerSet or a route, as far as they speak
/// of gateways; other kinds have none.
///
/// What is unknown is reported for every kind but Services, of which
/// [`read_service`](super::read_service) reports it.
#[must_use]
pub fn read_published(kind: ObjectKind, metadata: &ObjectMeta) -> Reading<PublishWish> {
    let known: &[&'static str] = match kind {
        ObjectKind::Service => &OF_SERVICE,
        ObjectKind::Gateway => &OF_GATEWAY,
        ObjectKind::ListenerSet => &OF_LISTENER_SET,
        ObjectKind::TcpRoute
        | ObjectKind::UdpRoute
        | ObjectKind::TlsRoute
        | ObjectKind::HttpRoute => &OF_ROUTE,
        ObjectKind::Pod
        | ObjectKind::Node
        | ObjectKind::EndpointSlice
        | ObjectKind::Host
        | ObjectKind::Namespace
        | ObjectKind::Secret
        | ObjectKind::GatewayClass
        | ObjectKind::ReferenceGrant
        | ObjectKind::EdgeGateway => return Reading::new(PublishWish::default(), Vec::new()),
    };
    let has = |key| known.contains(&key);
    let mut annotations = Vocabulary::new(metadata.annotations.as_ref());
    let wish = PublishWish {
        gateways: has(key::GATEWAY).then(|| annotations.gateways()).flatten(),
        ports: has(key::GATEWAY_PORTS).then(|| annotations.gateway_ports()).flatten(),
        hostnames: has(key::HOSTNAMES).then(|| annotations.hostnames()).flatten(),
        client_address: annotations.client_addresses(),
        sources: has(key::ALLOW_FROM).then(|| annotations.sources([key::ALLOW_FROM])).flatten(),
        max_new_per_second: has(key::MAX_NEW_PER_SECOND)
            .then(|| annotations.limit(key::MAX_NEW_PER_SECOND))
            .flatten(),
        max_open: has(key::MAX_OPEN).then(|| annotations.limit(key::MAX_OPEN)).flatten(),
        on_host: has(key::TARGET) && annotations.on_host(),
    };
    if kind != ObjectKind::Service {
        annotations.warn_of_unknown(kind.name(), known);
    }
    Reading::new(wish, annotations.into_problems())
}

impl Vocabulary<'_> {
    fn gateways(&mut self) -> Option<Gateways> {
        const REMEDY: &str = "write the names of EdgeGateway objects, separated by commas, or * \
                              for all";
        self.first_of([key::GATEWAY], |value| {
            let names: Vec<_> =
                value.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
            if names.contains(&"*") {
                return Ok(Gateways::All);
            }
            let names = names.into_iter().map(str::parse).collect::<Result<BTreeSet<_>, _>>();
            let names =
                names.map_err(|it: crate::name::ParseObjectNameError| (it.to_string(), REMEDY))?;
            if names.is_empty() {
                let problem = "the list is empty, so that no gateway would publish";
                return Err((problem.to_owned(), REMEDY));
            }
            Ok(Gateways::Listed(names))
        })
    }

    fn gateway_ports(&mut self) -> Option<GatewayPorts> {
        self.first_of([key::GATEWAY_PORTS], |value| {
            value.parse::<GatewayPorts>().map_err(|it| (it.to_string(), it.remedy()))
        })
    }

    fn hostnames(&mut self) -> Option<BTreeSet<ServerName>> {
        const REMEDY: &str = "write host names such as blog.example.com or *.apps.example.com, \
                              separated by commas";
        self.first_of([key::HOSTNAMES], |value| {
            let names = value.split(',').map(str::trim).filter(|it| !it.is_empty());
            let names = names.map(str::parse).collect::<Result<BTreeSet<ServerName>, _>>();
            let names = names.map_err(|it| (it.to_string(), REMEDY))?;
            if names.is_empty() {
                let problem = "the list is empty, so that no visitor would be let in";
                return Err((problem.to_owned(), REMEDY));
            }
            Ok(names)
        })
    }

    fn client_addresses(&mut self) -> ClientAddresses {
        let proxy = self.first_of([key::PROXY_PROTOCOL], proxy_protocol);
        let transparent = self.first_of([key::CLIENT_ADDRESS], |value| match value.trim() {
            "transparent" => Ok(()),
            _ => Err(("expected transparent".to_owned(), "write transparent, or leave it out")),
        });
        match (proxy, transparent) {
            (Some(_), Some(())) => {
                self.refuse(
                    key::CLIENT_ADDRESS,
                    "together with proxy-protocol it leaves open how backends learn who the \
                     visitor is",
                    "keep one of the two annotations",
                );
                ClientAddresses::default()
            }
            (Some(it), None) => it,
            (None, Some(())) => ClientAddresses {
                everywhere: Some(ClientAddress::Transparent),
                ..ClientAddresses::default()
            },
            (None, None) => ClientAddresses::default(),
        }
    }

    fn limit(&mut self, key: &'static str) -> Option<NonZeroU32> {
        self.first_of([key], |value| {
            value.trim().parse().map_err(|_| {
                let problem = "expected a number between 1 and 4294967295";
                (problem.to_owned(), "write a number, or leave it out for any number")
            })
        })
    }

    fn on_host(&mut self) -> bool {
        let read = |value: &str| match value.trim() {
            "host" => Ok(()),
            _ => Err((
                "expected host".to_owned(),
                "write host to reach programs on the agent's own machine, or leave it out",
            )),
        };
        self.first_of([key::TARGET], read).is_some()
    }
}

/// Reads `v2`, or `443=v2, 80=v1`, or both.
fn proxy_protocol(value: &str) -> Result<ClientAddresses, (String, &'static str)> {
    const REMEDY: &str = "write v1 or v2, or single public ports such as 443=v2, 25=v1";
    let refuse = |problem: String| (problem, REMEDY);
    let version = |text: &str| match text.trim() {
        "v1" => Ok(ClientAddress::ProxyV1),
        "v2" => Ok(ClientAddress::ProxyV2),
        other => {
            let other = crate::problem::excerpt(other);
            Err(refuse(format!("`{other}` is not a version of the PROXY protocol")))
        }
    };
    let mut read = ClientAddresses::default();
    for entry in value.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let twice = match entry.split_once('=') {
            None => read.everywhere.replace(version(entry)?).is_some(),
            Some((port, text)) => {
                let number = port.trim().parse::<Port>().map_err(|_| {
                    let port = crate::problem::excerpt(port);
                    refuse(format!("`{port}` is not a port between 1 and 65535"))
                })?;
                read.ports.insert(number, version(text)?).is_some()
            }
        };
        if twice {
            let entry = crate::problem::excerpt(entry);
            return Err(refuse(format!("`{entry}` is the second entry for its ports")));
        }
    }
    if read == ClientAddresses::default() {
        return Err(refuse("the value is empty".to_owned()));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_may_have_its_own_keys_and_is_told_about_others() {
        let everywhere = [(key::GATEWAY, "*"), (key::MAX_OPEN, "5"), (key::PROXY_PROTOCOL, "v2")];
        check(ObjectKind::Service, &everywhere, true, &[]);
        check(ObjectKind::Gateway, &everywhere, true, &[]);
        check(ObjectKind::ListenerSet, &everywhere, true, &[key::GATEWAY]);
        check(ObjectKind::TlsRoute, &everywhere, true, &[key::GATEWAY, key::MAX_OPEN]);
        check(ObjectKind::GatewayClass, &everywhere, true, &[]);
        check(
            ObjectKind::Gateway,
            &[("portcullis.dev/gatway", "*")],
            true,
            &["portcullis.dev/gatway"],
        );
        // Of Services, `read_service` tells.
        check(ObjectKind::Service, &[("portcullis.dev/gatway", "*")], true, &[]);
    }

    #[test]
    fn a_value_that_cannot_be_understood_refuses_the_object() {
        for (key, value) in [
            (key::GATEWAY, ""),
            (key::GATEWAY, "fra1, Fra2"),
            (key::GATEWAY_PORTS, "443:8443:sctp"),
            (key::GATEWAY_PORTS, "443, 443:1"),
            (key::HOSTNAMES, " , "),
            (key::HOSTNAMES, "a.example.com, *"),
            (key::PROXY_PROTOCOL, ""),
            (key::PROXY_PROTOCOL, "v2, v1"),
            (key::PROXY_PROTOCOL, "443=v2, 443=v1"),
            (key::PROXY_PROTOCOL, "0=v2"),
            (key::CLIENT_ADDRESS, "proxy"),
            (key::ALLOW_FROM, "10.0.0.0/33"),
            (key::MAX_OPEN, "-1"),
            (key::MAX_NEW_PER_SECOND, "4294967296"),
            (key::TARGET, "node"),
        ] {
            // Every name at all is a name, too.
            let accepted = (key, value) == (key::HOSTNAMES, "a.example.com, *");
            let told: &[&str] = if accepted { &[] } else { &[key] };
            check(ObjectKind::Service, &[(key, value)], accepted, told);
        }
    }

    #[test]
    fn single_ports_count_before_all_ports() {
        let reading = read(ObjectKind::Service, &[(key::PROXY_PROTOCOL, "v1, 443=v2, 25=v1")]);
        let addresses = reading.wish.expect("understood").client_address;
        let at = |port| addresses.at(Port::new(port).expect("a port"));
        assert_eq!(at(443), Some(ClientAddress::ProxyV2));
        assert_eq!(at(25), Some(ClientAddress::ProxyV1));
        assert_eq!(at(80), Some(ClientAddress::ProxyV1));
        let reading = read(ObjectKind::Service, &[(key::PROXY_PROTOCOL, "443=v2")]);
        let addresses = reading.wish.expect("understood").client_address;
        assert_eq!(addresses.at(Port::MAX), None);
    }

    proptest! {
        #[test]
        fn no_value_makes_reading_fail(
            key in proptest::sample::select(OF_SERVICE.to_vec()), value in "\\PC{0,40}",
        ) {
            let reading = read(ObjectKind::Service, &[(key, &value)]);
            let refused = reading.problems.iter().any(|it| it.reason.refuses());
            prop_assert_eq!(reading.wish.is_none(), refused);
        }
    }

    fn read(kind: ObjectKind, annotations: &[(&str, &str)]) -> Reading<PublishWish> {
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let annotations = Some(annotations.collect());
        read_published(kind, &ObjectMeta { annotations, ..ObjectMeta::default() })
    }

    #[track_caller]
    fn check(kind: ObjectKind, annotations: &[(&str, &str)], accepted: bool, told: &[&str]) {
        let reading = read(kind, annotations);
        assert_eq!(reading.wish.is_some(), accepted, "{kind} {annotations:?}");
        let fields: Vec<_> = reading.problems.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, told, "{kind} {annotations:?}");
    }
}
