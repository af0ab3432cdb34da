//! What can be known of an object before its kind is: who it is.

use api::object::{ObjectKind, ObjectRef};
use serde::Deserialize;

use crate::source::Unreadable;

/// The part that all objects share.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Header {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
}

/// What a header names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Named {
    /// A kind that is read.
    Kind(ObjectKind),
    /// A list of objects.
    List,
    /// Anything else.
    Other,
}

impl Header {
    /// What it names.
    pub(super) fn named(&self) -> Named {
        let (Some(version), Some(kind)) = (self.api_version.as_deref(), self.kind.as_deref())
        else {
            return Named::Other;
        };
        if let Some(kind) = find(version, kind) {
            return Named::Kind(kind);
        }
        let Some(item) = kind.strip_suffix("List") else { return Named::Other };
        // `kubectl get` of several kinds prints a plain `List`.
        let is_list = (item.is_empty() && version == "v1") || find(version, item).is_some();
        if is_list { Named::List } else { Named::Other }
    }

    /// What is lost when the rest of the object cannot be read.
    pub(super) fn unreadable(&self) -> Unreadable {
        let Named::Kind(kind) = self.named() else { return Unreadable::Unknown };
        let metadata = self.metadata.as_ref();
        let Some(name) = metadata.and_then(|it| it.name.as_deref()) else {
            return Unreadable::Unknown;
        };
        Unreadable::Object(if kind.is_namespaced() {
            let namespace = metadata.and_then(|it| it.namespace.as_deref());
            ObjectRef::namespaced(kind, namespace.unwrap_or("default"), name)
        } else {
            ObjectRef::cluster(kind, name)
        })
    }

    /// Guesses the header of a document that is no YAML, from the lines that look like one.
    ///
    /// Good enough to say whose document is broken and to keep what the host has for it; nothing
    /// is read from such a document.
    pub(super) fn guess(text: &str) -> Self {
        let mut header = Self::default();
        let mut metadata = Metadata::default();
        let mut in_metadata = false;
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.split(" #").next().unwrap_or(value);
            let value = Some(unquoted(value)).filter(|it| !it.is_empty());
            let indent = key.len() - key.trim_start().len();
            if indent == 0 {
                in_metadata = key.trim() == "metadata";
            }
            // `metadata: { name: blog, namespace: web }`
            let braced = value.as_deref().filter(|_| indent == 0 && in_metadata);
            for (key, value) in braced
                .iter()
                .flat_map(|it| it.split(['{', ',', '}']))
                .filter_map(|it| it.split_once(':'))
            {
                let value = Some(unquoted(value)).filter(|it| !it.is_empty());
                match unquoted(key).as_str() {
                    "name" => metadata.name = metadata.name.or(value),
                    "namespace" => metadata.namespace = metadata.namespace.or(value),
                    _ => {}
                }
            }
            match (indent, key.trim()) {
                (0, "apiVersion") => header.api_version = header.api_version.or(value),
                (0, "kind") => header.kind = header.kind.or(value),
                (1..=4, "name") if in_metadata => metadata.name = metadata.name.or(value),
                (1..=4, "namespace") if in_metadata => {
                    metadata.namespace = metadata.namespace.or(value);
                }
                _ => {}
            }
        }
        header.metadata = Some(metadata);
        header
    }
}

fn find(version: &str, name: &str) -> Option<ObjectKind> {
    ObjectKind::ALL.into_iter().find(|it| it.name() == name && it.api_version() == version)
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_whose_document_is_broken() {
        check(
            "apiVersion: v1\nkind: Service # web\nmetadata:\n  name: 'blog'\n  namespace: web\nspec: [",
            Unreadable::Object(ObjectRef::namespaced(ObjectKind::Service, "web", "blog")),
        );
        check(
            "apiVersion: v1\nkind: Node\nmetadata:\n    name: n1\n  x: {",
            Unreadable::Object(ObjectRef::cluster(ObjectKind::Node, "n1")),
        );
    }

    #[test]
    fn guesses_from_braces_too() {
        check(
            "apiVersion: v1\nkind: Service\nmetadata: { name: 'blog', namespace: web, labels: {a: b}\nspec: 7",
            Unreadable::Object(ObjectRef::namespaced(ObjectKind::Service, "web", "blog")),
        );
    }

    #[test]
    fn admits_not_to_know() {
        check("kind: Service\nmetadata:\n  name: blog", Unreadable::Unknown);
        check("apiVersion: v1\nkind: Service\nmetadata: {", Unreadable::Unknown);
        check("apiVersion: v1\nkind: Service\nspec:\n  name: blog", Unreadable::Unknown);
        check("\u{0}::::\n:\n", Unreadable::Unknown);
    }

    #[track_caller]
    fn check(text: &str, expected: Unreadable) {
        assert_eq!(Header::guess(text).unreadable(), expected);
    }
}
