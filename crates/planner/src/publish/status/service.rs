//! The status of Services.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::LoadBalancerIngress;

use super::live::Live;
use super::{StatusPatch, condition};
use crate::publish::PUBLISHED;
use crate::publish::attachment::{ServiceAttachment, ServiceGot};
use crate::publish::verdict::Verdict;

pub(super) fn patch(service: &ServiceAttachment, live: &Live<'_>) -> StatusPatch {
    let object = service.object.clone();
    let Some(asks) = &service.asks else {
        return StatusPatch::Service { object, ingress: None, condition: None };
    };
    let verdict = verdict(asks, live);
    // What cannot be understood, and never could, keeps what its status says.
    let ingress = (service.of_our_class && asks.understood).then(|| {
        let addresses = live.addresses(asks.got.places.iter());
        addresses.into_iter().map(ingress).collect()
    });
    let condition = Some(condition(PUBLISHED, service.generation, &verdict));
    StatusPatch::Service { object, ingress, condition }
}

fn verdict(asks: &ServiceGot, live: &Live<'_>) -> Verdict {
    let wrong = asks.wrong.iter().map(|it| it.1.as_str()).collect::<Vec<_>>().join("; ");
    let first = asks.wrong.first().map(|it| it.0);
    if !asks.understood {
        return Verdict::no(first.unwrap_or("InvalidValue"), wrong);
    }
    let (published, complete) = live.published(&asks.got, asks.has_edges, "Published");
    let join = |a: String, b: &str| match (a.is_empty(), b.is_empty()) {
        (true, _) => b.to_owned(),
        (_, true) => a,
        (false, false) => format!("{a}; {b}"),
    };
    match (published.is_true, first) {
        (true, None) if complete => published,
        (true, _) => Verdict::yes("PublishedInPart").with(join(wrong, &published.message)),
        (false, Some(reason)) if asks.got == Default::default() => Verdict::no(reason, wrong),
        (false, _) if !asks.unusable.is_empty() && asks.got.places.is_empty() => Verdict::no(
            "AddressNotUsable",
            format!("none of its gateways offers {}", asks.unusable.join(", ")),
        ),
        (false, _) => Verdict::no(published.reason, join(wrong, &published.message)),
    }
}

/// An address as kube-proxy must not short-circuit it: visitors inside the cluster pass the
/// gateway too, or backends that expect a PROXY header would meet them without one.
fn ingress(address: String) -> LoadBalancerIngress {
    match address.parse::<IpAddr>() {
        Ok(_) => LoadBalancerIngress {
            ip: Some(address),
            ip_mode: Some("Proxy".to_owned()),
            ..LoadBalancerIngress::default()
        },
        Err(_) => LoadBalancerIngress { hostname: Some(address), ..LoadBalancerIngress::default() },
    }
}
