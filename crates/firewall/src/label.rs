//! The names of owners and chains as a ruleset may carry them.
//!
//! Objects from a cluster have harmless names. Objects from a directory of manifests may claim any
//! name at all, so nothing enters a ruleset before it has passed through here: what is not plain
//! is replaced, what is too long is cut, and a hash of the whole name takes the place of what was
//! lost, so that two different names never become one.

use std::fmt::Write as _;

use api::object::ObjectRef;
use sha2::{Digest, Sha256};

/// The longest comment of a map element: `NFTNL_UDATA_COMMENT_MAXLEN` is 128 with its terminator.
const COMMENT: usize = 127;

/// The longest part of an object's name in a chain's name: two DNS labels and the slash. Chain
/// names end at 255 bytes (`NFT_NAME_MAXLEN`).
const PART: usize = 127;

/// Returns how a ruleset names the object that asked for a forward: `Service web/blog`.
///
/// The comment is for people, and for recognising what a broken object still has on the host.
/// Which rule is which is never decided by it.
pub(crate) fn owner_comment(owner: &ObjectRef) -> String {
    let mut text = String::with_capacity(48);
    write_owner(&mut text, owner);
    fit(text, COMMENT)
}

/// Returns `namespace/name` as a part of a chain's name.
pub(crate) fn chain_part(namespace: Option<&str>, name: &str) -> String {
    let text = match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    fit_chain(text)
}

/// Returns the first eight hexadecimal digits of a hash of `text`.
pub(crate) fn short_hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut hash = String::with_capacity(8);
    for byte in digest.iter().take(4) {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02X}");
    }
    hash
}

/// Returns what a host printed as a message may repeat it: short, on one line, and without what
/// would move a terminal's cursor or turn the direction of writing.
pub(crate) fn excerpt(text: &str, longest: usize) -> String {
    let plain = |it: char| match it {
        // They would be escaped as well, and harm nobody here.
        '"' | '\'' | '\\' => it.to_string(),
        _ => it.escape_debug().to_string(),
    };
    let mut shown: String = text.chars().take(longest).map(plain).collect();
    if text.chars().nth(longest).is_some() {
        shown.push('…');
    }
    shown
}

fn write_owner(text: &mut String, owner: &ObjectRef) {
    text.push_str(owner.kind.name());
    text.push(' ');
    if let Some(namespace) = &owner.namespace {
        text.push_str(namespace);
        text.push('/');
    }
    text.push_str(&owner.name);
}

fn fit(text: String, longest: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || " -./_".contains(c);
    replace(text, longest, plain)
}

fn fit_chain(text: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-./_".contains(c);
    replace(text, PART, plain)
}

fn replace(text: String, longest: usize, plain: impl Fn(char) -> bool) -> String {
    if text.len() <= longest && text.chars().all(&plain) {
        return text;
    }
    let kept = text.chars().map(|c| if plain(c) { c } else { '_' }).take(longest - 9);
    let mut short: String = kept.collect();
    short.push('.');
    short.push_str(&short_hash(&text));
    short
}

#[cfg(test)]
mod tests {
    use api::object::ObjectKind;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn harmless_owners_stay_as_they_are() {
        let owner = ObjectRef::namespaced(ObjectKind::Service, "web", "blog.v2");
        assert_eq!(owner_comment(&owner), "Service web/blog.v2");
    }

    #[test]
    fn names_of_the_greatest_legal_length_stay_different() {
        let name = |last: &str| "p".repeat(252) + last;
        let pod = |last| ObjectRef::namespaced(ObjectKind::Pod, &"n".repeat(63), &name(last));
        let (a, b) = (owner_comment(&pod("a")), owner_comment(&pod("b")));
        assert_ne!(a, b);
        assert_eq!((a.len(), b.len()), (COMMENT, COMMENT));
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_of_its_place(namespace in ".{0,80}", name in ".{0,300}") {
            let owner = ObjectRef::namespaced(ObjectKind::Pod, &namespace, &name);
            let comment = owner_comment(&owner);
            prop_assert!(comment.len() <= COMMENT);
            prop_assert!(comment.chars().all(|c| c.is_ascii_alphanumeric() || " -./_".contains(c)));
            let part = chain_part(Some(&namespace), &name);
            prop_assert!(part.len() <= PART);
            prop_assert!(part.chars().all(|c| c.is_ascii_alphanumeric() || "-./_".contains(c)));
        }
    }
}
