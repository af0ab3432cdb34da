//! What a Node's annotations and labels ask for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::vocabulary::Vocabulary;
use super::{Reading, key};

/// What a Node's annotations and labels ask for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NodeWish {
    /// Whether forwarded traffic stays away from it.
    pub excluded: bool,
}

/// Reads the annotations and labels of a Node.
///
/// A Node is never refused: a `portcullis.dev/exclude` that cannot be understood is reported and
/// excludes the Node, because that is what the key is for.
#[must_use]
pub fn read_node(metadata: &ObjectMeta) -> Reading<NodeWish> {
    let mut annotations = Vocabulary::new(metadata.annotations.as_ref());
    let by_annotation = annotations.switch(key::EXCLUDE, key::EPOK_EXCLUDE);
    let by_label = metadata.labels.as_ref().is_some_and(|labels| {
        [key::EPOK_EXCLUDE_LABEL, key::EXCLUDE_LABEL].iter().any(|it| labels.contains_key(*it))
    });
    annotations.warn_of_unknown("Node", &[key::EXCLUDE]);
    let wish = NodeWish { excluded: by_annotation || by_label };
    Reading { wish: Some(wish), problems: annotations.into_problems() }
}
