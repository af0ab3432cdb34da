//! What the objects say about us now, as the watches last saw it.
//!
//! Kept so that the reporter writes only what differs, without asking the server for each object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::annotation::key;
use api::host::Host;
use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::api::core::v1::{LoadBalancerIngress, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::Serialize;
use tokio::sync::Notify;

use super::FORWARDED;

/// What the objects say about us now.
#[derive(Debug, Default)]
pub struct Seen {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Known {
    objects: BTreeMap<ObjectRef, Entry>,
    /// Which of them say something else since somebody [asked](Seen::take_touched).
    touched: BTreeSet<ObjectRef>,
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Tells an object from a later one of the same name.
    pub(crate) uid: String,
    /// The generation of its specification.
    pub(crate) generation: Option<i64>,
    /// What it says about us.
    pub(crate) says: Says,
    /// Its version; later ones are greater (Kubernetes 1.35, comparable resource versions).
    version: u64,
}

impl Entry {
    /// The object's version, as a write may name it.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn says_the_same(&self, other: &Self) -> bool {
        (&self.uid, self.generation, &self.says) == (&other.uid, other.generation, &other.says)
    }
}

/// What an object says about us.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Says {
    /// Nothing is written to it.
    Nothing,
    /// A Service.
    Service(ServiceSays),
    /// A Host, its status as JSON.
    Host(serde_json::Value),
    /// An object of a kind that publishing writes to, its whole status as JSON.
    Status(serde_json::Value),
}

/// What a Service says about us.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceSays {
    /// Whether it is of our class, so that its addresses are ours to write.
    pub(crate) is_of_our_class: bool,
    /// Its addresses, whoever wrote them.
    pub(crate) ingress: Vec<LoadBalancerIngress>,
    /// Our condition.
    pub(crate) forwarded: Option<Condition>,
}

impl Seen {
    /// Learns what a Service says.
    pub(crate) fn service(
        &self,
        metadata: &ObjectMeta,
        spec: Option<&ServiceSpec>,
        status: Option<&ServiceStatus>,
    ) {
        let reference = reference(ObjectKind::Service, metadata);
        let says = service_says(spec, status);
        let asks = crate::kubernetes::concerns_us(metadata);
        if asks || says.is_of_our_class || says.forwarded.is_some() {
            self.insert(reference, metadata, Says::Service(says));
        } else {
            self.forget(&reference);
        }
    }

    /// Learns what a Host says.
    pub(crate) fn host(&self, host: &Host) {
        let status = serde_json::to_value(&host.status).unwrap_or_default();
        let reference = reference(ObjectKind::Host, &host.metadata);
        self.insert(reference, &host.metadata, Says::Host(status));
    }

    /// Learns what an object of a kind says that publishing writes to.
    pub(crate) fn status(
        &self,
        reference: ObjectRef,
        metadata: &ObjectMeta,
        status: Option<&impl Serialize>,
    ) {
        let status = status.and_then(|it| serde_json::to_value(it).ok()).unwrap_or_default();
        self.insert(reference, metadata, Says::Status(status));
    }

    /// Learns that an object is there.
    pub(crate) fn object(&self, reference: ObjectRef, metadata: &ObjectMeta) {
        self.insert(reference, metadata, Says::Nothing);
    }

    /// Learns that an object is gone, or does not concern us any more.
    pub(crate) fn forget(&self, reference: &ObjectRef) {
        let mut known = self.lock();
        known.touched.remove(reference);
        if known.objects.remove(reference).is_some() {
            drop(known);
            self.changed.notify_one();
        }
    }

    /// Learns that of a kind only these are left.
    pub(crate) fn retain(&self, kind: ObjectKind, left: &BTreeSet<ObjectRef>) {
        let stays = |it: &ObjectRef| it.kind != kind || left.contains(it);
        let mut known = self.lock();
        known.objects.retain(|it, _| stays(it));
        known.touched.retain(stays);
    }

    /// What one object says.
    pub(crate) fn get(&self, reference: &ObjectRef) -> Option<Entry> {
        self.lock().objects.get(reference).cloned()
    }

    /// What all objects say that something is written to.
    pub(crate) fn all(&self) -> BTreeMap<ObjectRef, Entry> {
        let known = self.lock();
        let written = known.objects.iter().filter(|(_, it)| it.says != Says::Nothing);
        written.map(|(reference, it)| (reference.clone(), it.clone())).collect()
    }

    /// What these say, of those that something is written to.
    pub(crate) fn of(&self, objects: &BTreeSet<ObjectRef>) -> BTreeMap<ObjectRef, Entry> {
        let known = self.lock();
        let these = objects.iter().filter_map(|it| known.objects.get_key_value(it));
        let written = these.filter(|(_, it)| it.says != Says::Nothing);
        written.map(|(reference, it)| (reference.clone(), it.clone())).collect()
    }

    /// All that there are.
    pub(crate) fn names(&self) -> BTreeSet<ObjectRef> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Which objects say something else since this was last asked.
    pub(crate) fn take_touched(&self) -> BTreeSet<ObjectRef> {
        std::mem::take(&mut self.lock().touched)
    }

    /// Waits until something is different from before.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn insert(&self, reference: ObjectRef, metadata: &ObjectMeta, says: Says) {
        let uid = metadata.uid.clone().unwrap_or_default();
        let version = metadata.resource_version.as_deref().and_then(|it| it.parse().ok());
        let version = version.unwrap_or(0);
        let entry = Entry { uid, generation: metadata.generation, says, version };
        let mut known = self.lock();
        let differs = match known.objects.get(&reference) {
            // The answer to a write and the watch come in any order.
            Some(newer) if newer.uid == entry.uid && newer.version > version => return,
            Some(before) => !before.says_the_same(&entry),
            None => true,
        };
        if differs {
            known.touched.insert(reference.clone());
        }
        known.objects.insert(reference, entry);
        drop(known);
        if differs {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it holds the lock; a poisoned map is as good as any other.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn service_says(spec: Option<&ServiceSpec>, status: Option<&ServiceStatus>) -> ServiceSays {
    let class = spec.and_then(|it| it.load_balancer_class.as_deref());
    let ingress = status.and_then(|it| it.load_balancer.as_ref()?.ingress.clone());
    let mut conditions = status.and_then(|it| it.conditions.as_ref()).into_iter().flatten();
    ServiceSays {
        is_of_our_class: class == Some(key::LOAD_BALANCER_CLASS),
        ingress: ingress.unwrap_or_default(),
        forwarded: conditions.find(|it| it.type_ == FORWARDED).cloned(),
    }
}

fn reference(kind: ObjectKind, metadata: &ObjectMeta) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use api::annotation::key::HOST_PORTS;
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn only_what_says_something_else_is_touched() {
        let seen = Seen::default();
        let tell = |name: &str, version: u64, status: Option<&ServiceStatus>| {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("web".to_owned()),
                resource_version: Some(version.to_string()),
                annotations: Some([(HOST_PORTS.to_owned(), "443".to_owned())].into()),
                ..ObjectMeta::default()
            };
            seen.service(&metadata, None, status);
        };
        let blog = ObjectRef::namespaced(ObjectKind::Service, "web", "blog");
        let shop = ObjectRef::namespaced(ObjectKind::Service, "web", "shop");
        let forwarded = Condition {
            type_: FORWARDED.to_owned(),
            status: "True".to_owned(),
            reason: String::new(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let status = ServiceStatus { conditions: Some(vec![forwarded]), load_balancer: None };

        tell("blog", 1, None);
        tell("shop", 1, None);
        assert_eq!(seen.take_touched(), [blog.clone(), shop.clone()].into());
        tell("blog", 2, None);
        assert_eq!(seen.take_touched(), [].into(), "a new version says the same");
        tell("blog", 3, Some(&status));
        assert_eq!(seen.take_touched(), [blog.clone()].into());
        tell("blog", 2, None);
        assert_eq!(seen.take_touched(), [].into(), "an old version is late");
        tell("shop", 4, Some(&status));
        seen.forget(&shop);
        assert_eq!(seen.take_touched(), [].into(), "nothing is written to what is gone");
        assert_eq!(seen.of(&[blog.clone(), shop].into()).into_keys().collect::<Vec<_>>(), [blog]);
    }
}
