//! Which documents nft may be given.

use super::Refusal;
use crate::label::excerpt;
use crate::nftables::layout::{FAMILY, TABLE};
use crate::nftables::reading::{
    Element, element, hooked, is_chain, is_container, is_type_of, may_stand,
};

/// Where in a document a line stands.
enum Place {
    Outside,
    Table,
    Container(String),
    Elements(String),
    Chain(String),
}

pub(super) fn check(document: &str) -> Result<(), Refusal> {
    let mut place = Place::Outside;
    for (index, line) in document.lines().enumerate() {
        let line = line.trim_matches('\t');
        place = step(place, line).ok_or_else(|| Refusal::Line {
            program: "nft",
            number: index + 1,
            line: excerpt(line, 200),
        })?;
    }
    match place {
        Place::Outside => Ok(()),
        Place::Table | Place::Container(_) | Place::Elements(_) | Place::Chain(_) => {
            Err(Refusal::Unfinished("nft"))
        }
    }
}

/// Where the next line stands; `None` when this one is not ours.
fn step(place: Place, line: &str) -> Option<Place> {
    match place {
        Place::Outside if line == format!("table {FAMILY} {TABLE} {{") => Some(Place::Table),
        Place::Outside => single(line).then_some(Place::Outside),
        Place::Table if line.is_empty() => Some(Place::Table),
        Place::Table if line == "}" => Some(Place::Outside),
        Place::Table => {
            let (kind, name) = line.strip_suffix(" {")?.split_once(' ')?;
            match kind {
                "set" | "map" if is_container(name) => Some(Place::Container(name.to_owned())),
                "chain" if is_chain(name) => Some(Place::Chain(name.to_owned())),
                _ => None,
            }
        }
        Place::Container(_) if line == "}" => Some(Place::Table),
        Place::Container(name) if line == "elements = {" => Some(Place::Elements(name)),
        Place::Container(name) => is_type_of(&name, line).then_some(Place::Container(name)),
        Place::Elements(name) if line == "}" => Some(Place::Container(name)),
        Place::Elements(name) => {
            element(line.strip_suffix(',')?)?;
            Some(Place::Elements(name))
        }
        Place::Chain(_) if line == "}" => Some(Place::Table),
        Place::Chain(name) => {
            let fits = hooked(line) == Some(name.as_str()) || may_stand(&name, line);
            fits.then_some(Place::Chain(name))
        }
    }
}

/// Whether a line that stands for itself is ours.
fn single(line: &str) -> bool {
    let at = format!(" {FAMILY} {TABLE}");
    let Some((head, rest)) = line.split_once(at.as_str()) else { return false };
    if rest.is_empty() {
        return matches!(head, "add table" | "delete table");
    }
    let Some(rest) = rest.strip_prefix(' ') else { return false };
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match head {
        "create element" | "delete element" => is_container(name) && elements(rest),
        "create chain" if rest.is_empty() => is_chain(name),
        "create chain" => {
            let hook = rest.strip_prefix("{ ").and_then(|it| it.strip_suffix(" }"));
            hook.and_then(hooked) == Some(name)
        }
        "flush chain" | "delete chain" => is_chain(name) && rest.is_empty(),
        "add rule" => is_chain(name) && may_stand(name, rest),
        _ => false,
    }
}

fn elements(list: &str) -> bool {
    let list = list.strip_prefix("{ ").and_then(|it| it.strip_suffix(" }"));
    list.is_some_and(|it| it.split(", ").all(|it| element(it).is_some_and(|it| is_plain(&it))))
}

/// Elements say where a port leads, never what is accepted or dropped.
fn is_plain(element: &Element) -> bool {
    match element {
        Element::Interface { chain, .. } | Element::Port { chain, .. } => {
            chain.as_deref().is_none_or(is_chain)
        }
        Element::Address(_) => true,
    }
}
