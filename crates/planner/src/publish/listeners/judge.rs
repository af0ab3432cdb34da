//! Judging one listener, without looking at others.

use api::gateway_api::{GROUP, SecretObjectReference};
use api::object::{ObjectKind, ObjectRef};

use super::{ListenerState, Speaks};
use crate::publish::verdict::Verdict;
use crate::publish::view::{ListenerForm, PublishView};

/// Judges one listener.
pub(super) fn judge<'a>(
    view: &PublishView,
    owner: &ObjectRef,
    form: &'a ListenerForm,
) -> ListenerState<'a> {
    let (speaks, accepted) = speaks(view, form);
    let fitting = speaks.map_or(&[][..], kinds);
    let (kinds, all_known) = allowed(form, fitting);
    let ends_tls = form.protocol == "HTTPS" || (form.protocol == "TLS" && !form.passthrough);
    let certificates = match ends_tls {
        true => certificates(view, owner, form),
        false => Verdict::yes("ResolvedRefs"),
    };
    let lacks_certificate = !certificates.is_true;
    let resolved = match all_known {
        Ok(()) => certificates,
        Err(message) => Verdict::no("InvalidRouteKinds", message),
    };
    ListenerState {
        owner: owner.clone(),
        form,
        speaks,
        kinds,
        accepted,
        resolved,
        conflict: None,
        lacks_certificate,
        needs_host: false,
        attached: 0,
    }
}

/// What a listener speaks, and whether that is supported.
fn speaks(view: &PublishView, form: &ListenerForm) -> (Option<Speaks>, Verdict) {
    let support = view.support();
    let speaks = match (form.protocol.as_str(), form.passthrough) {
        ("TCP", _) => Some(Speaks::Tcp),
        ("UDP", _) => Some(Speaks::Udp),
        ("TLS", true) => Some(Speaks::Passthrough),
        ("TLS", false) if support.terminate => Some(Speaks::Terminate),
        ("TLS", false) => {
            let message = "tls.mode Terminate is not supported; write Passthrough, and let the \
                           Pods end TLS";
            return (None, Verdict::no("UnsupportedValue", message));
        }
        ("HTTP", _) if support.http => Some(Speaks::Http),
        ("HTTPS", _) if support.http && support.terminate => Some(Speaks::Https),
        _ => None,
    };
    let Some(speaks) = speaks else {
        let known = match (support.http, support.terminate) {
            (false, _) => "TCP, UDP and TLS are",
            (true, false) => "HTTP, TCP, UDP and TLS are",
            (true, true) => "HTTP, HTTPS, TCP, UDP and TLS are",
        };
        let message = format!("protocol {} is not supported; {known}", form.protocol);
        return (None, Verdict::no("UnsupportedProtocol", message));
    };
    let accepted = match (&form.port, &form.hostname) {
        (None, _) => Verdict::no("PortUnavailable", "not a port between 1 and 65535"),
        (_, Err(written)) if speaks.has_names() => {
            Verdict::no("UnsupportedValue", format!("hostname `{written}` is not a host name"))
        }
        _ => Verdict::yes("Accepted"),
    };
    (Some(speaks), accepted)
}

/// The kinds of routes that fit a protocol.
fn kinds(speaks: Speaks) -> &'static [ObjectKind] {
    match speaks {
        Speaks::Tcp => &[ObjectKind::TcpRoute],
        Speaks::Udp => &[ObjectKind::UdpRoute],
        Speaks::Passthrough | Speaks::Terminate => &[ObjectKind::TlsRoute],
        Speaks::Http | Speaks::Https => &[ObjectKind::HttpRoute],
    }
}

/// The kinds that fit and that are allowed, and whether every allowed one fits.
fn allowed(form: &ListenerForm, fitting: &[ObjectKind]) -> (Vec<ObjectKind>, Result<(), String>) {
    if form.kinds.is_empty() {
        return (fitting.to_vec(), Ok(()));
    }
    let (mut kinds, mut unknown) = (Vec::new(), Vec::new());
    for it in &form.kinds {
        let ours = it.group.as_deref().unwrap_or(GROUP) == GROUP;
        match fitting.iter().find(|kind| ours && kind.name() == it.kind) {
            Some(kind) if !kinds.contains(kind) => kinds.push(*kind),
            Some(_) => {}
            None => unknown.push(it.kind.as_str()),
        }
    }
    let refused = || format!("not taken by protocol {}: {}", form.protocol, unknown.join(", "));
    let all_known = if unknown.is_empty() { Ok(()) } else { Err(refused()) };
    (kinds, all_known)
}

/// Whether the certificates that a listener names may be used and could serve.
fn certificates(view: &PublishView, owner: &ObjectRef, form: &ListenerForm) -> Verdict {
    if form.certificates.is_empty() && view.support().terminate {
        return Verdict::no("InvalidCertificateRef", "tls.certificateRefs names no certificate");
    }
    let wrong = form.certificates.iter().find_map(|it| certificate(view, owner, it).err());
    wrong.map_or(Verdict::yes("ResolvedRefs"), |(reason, message)| Verdict::no(reason, message))
}

fn certificate(
    view: &PublishView,
    owner: &ObjectRef,
    reference: &SecretObjectReference,
) -> Result<(), (&'static str, String)> {
    let own = owner.namespace.as_deref().unwrap_or_default();
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let kind = reference.kind.as_deref().unwrap_or("Secret");
    let group = reference.group.as_deref().unwrap_or_default();
    let name = &reference.name;
    let secret = (namespace.to_owned(), name.clone());
    if namespace != own && !view.is_granted((owner.kind, own), kind, &secret) {
        let message = format!(
            "no ReferenceGrant in namespace {namespace} allows a {} of namespace {own} to use \
             {kind} {name}",
            owner.kind
        );
        return Err(("RefNotPermitted", message));
    }
    let invalid = |message: String| Err(("InvalidCertificateRef", message));
    if !group.is_empty() || kind != "Secret" {
        return invalid(format!("{kind} {name} of group `{group}` is not a Secret"));
    }
    if !view.support().terminate {
        return Ok(());
    }
    view.certificate(&secret).or_else(|wrong| invalid(format!("Secret {namespace}/{name} {wrong}")))
}
