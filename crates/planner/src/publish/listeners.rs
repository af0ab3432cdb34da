//! Which listeners of Gateways and ListenerSets are sound, and which routes they take.
//!
//! The rules are those of `GatewaySpec.listeners` and `ListenerSetSpec.listeners` of the Gateway
//! API: within one object, listeners that cannot be told apart all lose; between a Gateway and its
//! ListenerSets, and between two ListenerSets, the one that comes first wins.

mod conflict;
mod judge;

use std::collections::BTreeMap;
use std::ops::Range;

use api::annotation::{Gateways, key};
use api::gateway_api::GatewayAddress;
use api::object::{ObjectKind, ObjectRef};
use api::port::{Port, Protocol};
use api::server_name::ServerName;

use super::verdict::Verdict;
use super::view::{Class, GatewayForm, Key, ListenerForm, PublishView, SetForm, object};
use crate::finding::{Finding, Severity};
use conflict::{mark_hosts, settle};
use judge::judge;

/// Every listener of every Gateway of ours.
#[derive(Debug, Default)]
pub(super) struct Listeners<'a> {
    pub(super) gateways: BTreeMap<&'a Key, GatewayState<'a>>,
    pub(super) sets: BTreeMap<&'a Key, SetState<'a>>,
    pub(super) all: Vec<ListenerState<'a>>,
}

/// A Gateway of ours.
#[derive(Debug)]
pub(super) struct GatewayState<'a> {
    pub(super) form: &'a GatewayForm,
    /// The EdgeGateways that it is on.
    pub(super) edges: Vec<&'a str>,
    /// The addresses that it wants; empty for any.
    pub(super) asked: Vec<&'a str>,
    pub(super) accepted: Verdict,
    /// Its own listeners.
    pub(super) own: Range<usize>,
    /// How many ListenerSets are attached.
    pub(super) attached_sets: i32,
}

/// A ListenerSet that names a Gateway of ours.
#[derive(Debug)]
pub(super) struct SetState<'a> {
    pub(super) form: &'a SetForm,
    pub(super) accepted: Verdict,
    /// Its listeners; none when it may not attach.
    pub(super) own: Range<usize>,
}

/// A listener.
#[derive(Debug)]
pub(super) struct ListenerState<'a> {
    /// The Gateway or ListenerSet that has it.
    pub(super) owner: ObjectRef,
    pub(super) form: &'a ListenerForm,
    /// What it speaks; `None` when that is not supported.
    pub(super) speaks: Option<Speaks>,
    /// The kinds of routes that it takes.
    pub(super) kinds: Vec<ObjectKind>,
    pub(super) accepted: Verdict,
    pub(super) resolved: Verdict,
    /// Why it cannot be told apart from another one; `None` when it can.
    pub(super) conflict: Option<&'static str>,
    /// Whether a certificate that it needs is missing.
    pub(super) lacks_certificate: bool,
    /// Whether requests would have to be read to tell which are for it. They are not, so it leads
    /// nowhere.
    pub(super) needs_host: bool,
    /// How many accepted routes are attached.
    pub(super) attached: i32,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Speaks {
    Tcp,
    Udp,
    /// TLS that goes on to backends unbroken.
    Passthrough,
    /// TLS that ends here.
    Terminate,
    Http,
    Https,
}

impl Speaks {
    pub(super) fn transport(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::Tcp | Self::Passthrough | Self::Terminate | Self::Http | Self::Https => {
                Protocol::Tcp
            }
        }
    }

    /// Whether listeners on one port are told apart by host name.
    fn has_names(self) -> bool {
        match self {
            Self::Tcp | Self::Udp => false,
            Self::Passthrough | Self::Terminate | Self::Http | Self::Https => true,
        }
    }
}

impl ListenerState<'_> {
    /// Whether ports may be opened for it, and which.
    pub(super) fn opens(&self) -> Option<(Speaks, Port)> {
        let sound = self.accepted.is_true && !self.lacks_certificate;
        self.speaks.zip(self.form.port).filter(|_| sound)
    }

    /// Which names it is for.
    pub(super) fn name(&self) -> &ServerName {
        match (&self.form.hostname, self.speaks) {
            (Ok(name), Some(speaks)) if speaks.has_names() => name,
            _ => &ServerName::Any,
        }
    }
}

/// Whether a GatewayClass of ours can be used, and with which EdgeGateway.
pub(super) fn accept_class<'a>(view: &PublishView, class: &'a Class) -> (Verdict, Option<&'a str>) {
    let Some(it) = &class.parameters else { return (Verdict::yes("Accepted"), None) };
    let refuse = |message| (Verdict::no("InvalidParameters", message), None);
    if it.group != "portcullis.dev" || it.kind != "EdgeGateway" || it.namespace.is_some() {
        let namespace = it.namespace.as_ref().map(|it| format!("{it}/")).unwrap_or_default();
        return refuse(format!(
            "spec.parametersRef names {} {namespace}{} of group `{}`; it must name an EdgeGateway \
             (group portcullis.dev, no namespace)",
            it.kind, it.name, it.group
        ));
    }
    if !view.edges().contains_key(&it.name) {
        return refuse(format!("spec.parametersRef: there is no EdgeGateway `{}`", it.name));
    }
    (Verdict::yes("Accepted"), Some(&it.name))
}

/// The EdgeGateways that `wanted` names; those that do not exist are reported.
pub(super) fn chosen<'a>(
    view: &'a PublishView,
    object: &ObjectRef,
    wanted: Option<&Gateways>,
    findings: &mut Vec<Finding>,
) -> Vec<&'a str> {
    let every = || view.edges().keys().map(String::as_str);
    let Some(Gateways::Listed(names)) = wanted else { return every().collect() };
    for unknown in names.iter().filter(|it| !view.edges().contains_key(it.as_str())) {
        let known: Vec<_> = every().collect();
        findings.push(Finding {
            severity: Severity::Error,
            reason: "UnknownGateway",
            object: object.clone(),
            field: key::GATEWAY.to_owned(),
            value: unknown.to_string(),
            problem: "there is no EdgeGateway of this name".to_owned(),
            remedy: match known.is_empty() {
                true => "create one; there is none at all".to_owned(),
                false => format!("name one of: {}; or write * for all", known.join(", ")),
            },
        });
    }
    every().filter(|it| names.iter().any(|name| name.as_str() == *it)).collect()
}

impl<'a> Listeners<'a> {
    /// Judges every listener.
    pub(super) fn of(view: &'a PublishView, findings: &mut Vec<Finding>) -> Self {
        let mut listeners = Self::default();
        for (gateway, form) in view.gateways() {
            if let Some(class) = view.classes().get(&form.class) {
                listeners.add(view, gateway, form, class, findings);
            }
        }
        listeners
    }

    fn add(
        &mut self,
        view: &'a PublishView,
        gateway: &'a Key,
        form: &'a GatewayForm,
        class: &'a Class,
        findings: &mut Vec<Finding>,
    ) {
        let owner = object(ObjectKind::Gateway, gateway);
        findings.extend(form.annotated.findings.iter().cloned());
        let own = self.judge(view, &owner, &form.listeners);
        settle(&mut self.all, own.clone(), 0..0);
        let mut winners = own.clone();
        let mut sets: Vec<_> =
            view.sets().iter().filter(|(_, it)| it.parent.as_ref() == Some(gateway)).collect();
        sets.sort_by_key(|(key, it)| (it.meta.created, *key));
        let mut allowed = Vec::new();
        for (set, it) in sets {
            findings.extend(it.annotated.findings.iter().cloned());
            let own = if form.allowed_listeners.allows(&gateway.0, &set.0, view.labels(&set.0)) {
                let owner = object(ObjectKind::ListenerSet, set);
                let own = self.judge(view, &owner, &it.listeners);
                settle(&mut self.all, own.clone(), winners.clone());
                winners.end = own.end;
                Some(own)
            } else {
                None
            };
            allowed.push((set, it, own));
        }
        mark_hosts(&mut self.all, winners);
        let edges = edges_of(view, &owner, form, class, findings);
        let (accepted, edges) = self.accept(form, own.clone(), edges);
        let asked = asked(&form.addresses);
        let mut attached_sets = 0;
        for (set, form, own) in allowed {
            let verdict = self.accept_set(&accepted, own.clone());
            attached_sets += i32::from(verdict.is_true);
            let own = own.unwrap_or(0..0);
            self.sets.insert(set, SetState { form, accepted: verdict, own });
        }
        let state = GatewayState { form, edges, asked, accepted, own, attached_sets };
        self.gateways.insert(gateway, state);
    }

    fn judge(
        &mut self,
        view: &PublishView,
        owner: &ObjectRef,
        forms: &'a [ListenerForm],
    ) -> Range<usize> {
        let first = self.all.len();
        self.all.extend(forms.iter().map(|it| judge(view, owner, it)));
        first..self.all.len()
    }

    /// Whether a Gateway is accepted, and on which EdgeGateways it then is.
    fn accept(
        &self,
        form: &GatewayForm,
        own: Range<usize>,
        edges: Result<Vec<&'a str>, String>,
    ) -> (Verdict, Vec<&'a str>) {
        let no = |reason, message: String| (Verdict::no(reason, message), Vec::new());
        let edges = match edges {
            Ok(edges) => edges,
            Err(message) => return no("InvalidParameters", message),
        };
        if form.annotated.wish.is_none() {
            let errors = form.annotated.findings.iter().filter(|it| it.severity == Severity::Error);
            let problems: Vec<_> =
                errors.map(|it| format!("{}: {}", it.field, it.problem)).collect();
            return no("Invalid", problems.join("; "));
        }
        if let Some(other) = form.addresses.iter().find(|it| !is_supported(it)) {
            let type_ = other.type_.as_deref().unwrap_or_default();
            let message = format!("spec.addresses: type `{type_}` is not supported");
            return no("UnsupportedAddress", message);
        }
        let listeners = &self.all[own];
        let refused: Vec<_> = listeners
            .iter()
            .filter(|it| !it.accepted.is_true)
            .map(|it| format!("listener {}: {}", it.form.name, it.accepted.message))
            .collect();
        match refused.len() {
            0 => (Verdict::yes("Accepted"), edges),
            all if all == listeners.len() => no("ListenersNotValid", refused.join("; ")),
            _ => (Verdict::yes("ListenersNotValid").with(refused.join("; ")), edges),
        }
    }

    /// Whether a ListenerSet is accepted; `own` is `None` when its Gateway does not allow it.
    fn accept_set(&self, gateway: &Verdict, own: Option<Range<usize>>) -> Verdict {
        let Some(own) = own else {
            let message = "spec.allowedListeners of the Gateway does not allow this ListenerSet";
            return Verdict::no("NotAllowed", message);
        };
        if !gateway.is_true {
            return Verdict::no("ParentNotAccepted", "the Gateway is not accepted");
        }
        let sound = |it: &&ListenerState<'_>| it.accepted.is_true && !it.lacks_certificate;
        let listeners = &self.all[own];
        match listeners.iter().filter(sound).count() {
            0 => Verdict::no("ListenersNotValid", "none of its listeners is valid"),
            some if some == listeners.len() => Verdict::yes("Accepted"),
            _ => Verdict::yes("ListenersNotValid").with("some of its listeners are not valid"),
        }
    }
}

/// On which EdgeGateways a Gateway is; why that cannot be said otherwise.
fn edges_of<'a>(
    view: &'a PublishView,
    owner: &ObjectRef,
    form: &GatewayForm,
    class: &'a Class,
    findings: &mut Vec<Finding>,
) -> Result<Vec<&'a str>, String> {
    let (accepted, of_class) = accept_class(view, class);
    if !accepted.is_true {
        let name = &form.class;
        return Err(format!("GatewayClass {name} is not accepted: {}", accepted.message));
    }
    let only = |name: &str| view.edges().get_key_value(name).map(|(name, _)| vec![name.as_str()]);
    let annotated = form.annotated.wish.as_ref().and_then(|it| it.gateways.as_ref());
    // A reference that leads nowhere is wrong even where an annotation overrides it.
    let referred = match &form.parameters {
        Some(it) if it.group != "portcullis.dev" || it.kind != "EdgeGateway" => {
            return Err("spec.infrastructure.parametersRef must name an EdgeGateway (group \
                        portcullis.dev)"
                .to_owned());
        }
        Some(it) => Some(only(&it.name).ok_or_else(|| {
            format!("spec.infrastructure.parametersRef: there is no EdgeGateway `{}`", it.name)
        })?),
        None => None,
    };
    if annotated.is_some() {
        let edges = chosen(view, owner, annotated, findings);
        if edges.is_empty() && !view.edges().is_empty() {
            return Err(format!("{}: none of these EdgeGateways exists", key::GATEWAY));
        }
        return Ok(edges);
    }
    Ok(referred
        .or_else(|| of_class.and_then(only))
        .unwrap_or_else(|| view.edges().keys().map(String::as_str).collect()))
}

fn is_supported(address: &GatewayAddress) -> bool {
    matches!(address.type_.as_deref(), None | Some("IPAddress" | "Hostname"))
}

/// The addresses that are asked for by value.
fn asked(addresses: &[GatewayAddress]) -> Vec<&str> {
    let values = addresses.iter().filter_map(|it| it.value.as_deref());
    values.filter(|it| !it.is_empty()).collect()
}
