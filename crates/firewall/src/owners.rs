//! For whom a host forwards, as its comments tell.

use std::collections::BTreeSet;

use api::object::{ObjectKind, ObjectRef};

use crate::backend::Observed;
use crate::iptables::keep::lookup_rule;
use crate::iptables::layout::{NAT, lookup};
use crate::nftables::layout::EXPOSURES;

impl Observed {
    /// The objects that the host forwards something for.
    ///
    /// For keeping everything while nobody knows what there should be. A name that was too long
    /// for a comment comes back shortened, which [`plan`](crate::Backend::plan) recognises.
    #[must_use]
    pub fn owners(&self) -> BTreeSet<ObjectRef> {
        let mut owners = BTreeSet::new();
        for exposure in EXPOSURES {
            let elements = self.nftables.iter().flat_map(|it| it.of(exposure));
            owners.extend(elements.filter_map(|(_, it)| owner(it.comment.as_deref()?)));
            for (_, family) in self.iptables.each() {
                let rules = family.rules(NAT, lookup(exposure));
                owners.extend(rules.iter().filter_map(|it| owner(&lookup_rule(it)?.comment)));
            }
        }
        owners
    }
}

/// Reads what [`owner_comment`](crate::label::owner_comment) wrote.
fn owner(comment: &str) -> Option<ObjectRef> {
    let (kind, name) = comment.split_once(' ')?;
    let kind = ObjectKind::ALL.into_iter().find(|it| it.name() == kind)?;
    Some(match name.split_once('/') {
        Some((namespace, name)) => ObjectRef::namespaced(kind, namespace, name),
        None => ObjectRef::cluster(kind, name),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::label::owner_comment;

    #[test]
    fn an_owner_is_read_back() {
        check("Service web/blog", Some(ObjectRef::namespaced(ObjectKind::Service, "web", "blog")));
        check("Host edge-a", Some(ObjectRef::cluster(ObjectKind::Host, "edge-a")));
        check("Deployment web/blog", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_recognised(namespace in "[a-z.-]{1,90}", name in "[a-zA-Z0-9 ./_é-]{1,260}") {
            let comment = owner_comment(&ObjectRef::namespaced(ObjectKind::Pod, &namespace, &name));
            let owner = owner(&comment).expect("a comment that we wrote");
            prop_assert_eq!(owner_comment(&owner), comment);
        }
    }

    #[track_caller]
    fn check(comment: &str, expected: Option<ObjectRef>) {
        assert_eq!(owner(comment), expected);
    }
}
