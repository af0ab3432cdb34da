//! What `nft -j list table` prints, back to the content of our table.
//!
//! JSON and not nft's own text, because its schema is versioned and its text is not. Whatever we
//! do not recognise is kept as text: a rule as a rule that equals none of ours, anything else as
//! foreign. Nothing that a listing can hold makes reading it fail, as long as it is a listing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use api::port::{Port, Protocol};
use planner::desired::Exposure;
use serde_json::Value;

use super::expression;
use super::layout::{
    CONTAINERS, Container, DESTINATIONS, EXPOSURES, FAMILY, FORWARDED, INTERFACES, TABLE, TARGETS,
    ports, verdicts,
};
use super::reading::{is_chain, is_comment, is_interface};
use super::table::{Chain, Element, Name, PortKey, Table, hook};
use crate::label::excerpt;

/// How much is told of a thing that is not ours, in characters.
const FOREIGN: usize = 80;

/// Reads a listing of our table.
///
/// # Errors
///
/// Fails when `text` is not JSON as nft prints it, or holds no table of ours.
pub(crate) fn parse(text: &str) -> Result<Table, NotAListing> {
    let document: Value = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(_) if has_flags(text) => return Ok(with_flags()),
        Err(error) => return Err(NotAListing::Json(error)),
    };
    let objects = document.get("nftables").and_then(Value::as_array).ok_or(NotAListing::Shape)?;
    let mut reading = Reading::default();
    let mut found = false;
    for object in objects {
        let Some((kind, body)) = object.as_object().and_then(|it| it.iter().next()) else {
            return Err(NotAListing::Shape);
        };
        match kind.as_str() {
            "metainfo" => {}
            "table" => {
                if text_of(body, "name") != TABLE || text_of(body, "family") != FAMILY {
                    return Err(NotAListing::Shape);
                }
                found = true;
                if body.get("flags").is_some() {
                    reading.foreign(FLAGS.to_owned());
                }
            }
            "chain" => reading.chain(body),
            "rule" => reading.rule(body),
            "set" | "map" => reading.container(kind, body),
            other => {
                let name = text_of(body, "name");
                reading.foreign(format!("{other} {name}"));
            }
        }
    }
    if !found {
        return Err(NotAListing::Shape);
    }
    Ok(reading.finish())
}

/// A table that sleeps does nothing. We never give it flags.
const FLAGS: &str = "flags of the table";

/// Whether a listing that is not JSON is one of a table with flags: nft 1.0.6 prints whatever lies
/// in memory in the place of their names.
fn has_flags(text: &str) -> bool {
    let table =
        format!("{{\"table\": {{\"family\": \"{FAMILY}\", \"name\": \"{TABLE}\", \"handle\": ");
    let rest = text
        .split_once(&table)
        .map(|(_, rest)| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.is_some_and(|it| it.starts_with(", \"flags\": "))
}

/// A table of which nothing is known but that it must be written anew.
fn with_flags() -> Table {
    Table { foreign: BTreeSet::from([FLAGS.to_owned()]), ..Table::default() }
}

/// The text is not what `nft -j list table` prints.
#[derive(Debug, thiserror::Error)]
pub enum NotAListing {
    /// It is not JSON.
    #[error("the listing is not JSON")]
    Json(#[source] serde_json::Error),
    /// It is JSON, but no listing of our table.
    #[error("the listing does not hold `table {FAMILY} {TABLE}`")]
    Shape,
}

#[derive(Default)]
struct Reading {
    table: Table,
    /// One allocation for each different name or comment: most elements share them.
    names: BTreeSet<Name>,
    containers: BTreeSet<&'static str>,
}

impl Reading {
    fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name = Name::from(text);
        self.names.insert(Arc::clone(&name));
        name
    }

    /// Notes what is not ours, on one line: it is told to people.
    fn foreign(&mut self, what: String) {
        self.table.foreign.insert(excerpt(&what, FOREIGN));
    }

    fn chain(&mut self, body: &Value) {
        if !is_chain(text_of(body, "name")) {
            return self.foreign(format!("chain {}", text_of(body, "name")));
        }
        let name = self.name(text_of(body, "name"));
        let mut chain = Chain::default();
        if let Some(at) = body.get("hook").and_then(Value::as_str) {
            let known = hook(&name).filter(|it| {
                it.hook == at
                    && it.kind == text_of(body, "type")
                    && body.get("prio").and_then(Value::as_i64) == Some(it.priority.into())
                    && text_of(body, "policy") == "accept"
            });
            match known {
                Some(hook) => chain.hook = Some(hook.chain),
                None => self.foreign(format!("base chain {name} at {at}")),
            }
        } else if hook(&name).is_some() {
            self.foreign(format!("chain {name} without its hook"));
        }
        self.table.chains.insert(name, chain);
    }

    fn rule(&mut self, body: &Value) {
        // The rules of chains that are not ours go with their chains.
        if !is_chain(text_of(body, "chain")) {
            return;
        }
        let chain = self.name(text_of(body, "chain"));
        let rule = expression::rule(body);
        self.table.chains.entry(chain).or_default().rules.push(rule);
    }

    fn container(&mut self, kind: &str, body: &Value) {
        let name = text_of(body, "name");
        let known = CONTAINERS.iter().find(|it| it.name == name && is_as_written(it, kind, body));
        let Some(container) = known else {
            return self.foreign(format!("{kind} {name}"));
        };
        self.containers.insert(container.name);
        let elements = body.get("elem").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for element in elements {
            if self.element(container.name, element).is_none() {
                self.foreign(format!("element {element} in {name}"));
            }
        }
    }

    fn element(&mut self, container: &str, element: &Value) -> Option<()> {
        if container == INTERFACES {
            let (key, value) = pair(element)?;
            let key = key.as_str().filter(|it| is_interface(it))?;
            let chain = self.name(goto(value)?);
            self.table.interfaces.insert(key.to_owned(), chain);
            return Some(());
        }
        if container == FORWARDED {
            self.table.forwarded.insert(port_key(element)?);
            return Some(());
        }
        let address = || element.as_str()?.parse::<IpAddr>().ok();
        if DESTINATIONS.contains(&container) {
            self.table.destinations.insert(address()?);
            return Some(());
        }
        if TARGETS.contains(&container) {
            self.table.targets.insert(address()?);
            return Some(());
        }
        for exposure in EXPOSURES {
            if container == verdicts(exposure) {
                return self.verdict(exposure, element);
            }
            if container == ports(exposure) {
                let (key, value) = pair(element)?;
                let port = Port::new(u16::try_from(value.as_u64()?).ok()?)?;
                self.at(exposure, port_key(key)?).port = Some(port);
                return Some(());
            }
        }
        None
    }

    fn verdict(&mut self, exposure: Exposure, element: &Value) -> Option<()> {
        let (key, value) = pair(element)?;
        let (key, comment) = match key.get("elem") {
            Some(elem) if has_only(elem, &["val", "comment"]) => {
                (elem.get("val")?, elem.get("comment"))
            }
            Some(_) => return None,
            None => (key, None),
        };
        let key = port_key(key)?;
        let chain = self.name(goto(value)?);
        let comment = match comment {
            Some(comment) => Some(self.name(comment.as_str().filter(|it| is_comment(it))?)),
            None => None,
        };
        let element = self.at(exposure, key);
        element.chain = Some(chain);
        element.comment = comment;
        Some(())
    }

    fn at(&mut self, exposure: Exposure, key: PortKey) -> &mut Element {
        self.table.forwards.entry(exposure).or_default().entry(key).or_default()
    }

    fn finish(mut self) -> Table {
        for container in CONTAINERS {
            if !self.containers.contains(container.name) {
                self.foreign(format!("no {} {}", container.keyword, container.name));
            }
        }
        self.table
    }
}

fn is_as_written(container: &Container, kind: &str, body: &Value) -> bool {
    let key = match body.get("type") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(many)) => {
            many.iter().map(|it| it.as_str().unwrap_or("?")).collect::<Vec<_>>().join(" . ")
        }
        _ => return false,
    };
    container.keyword == kind
        && container.key == key
        && container.value == body.get("map").and_then(Value::as_str)
        && has_only(body, &["family", "name", "table", "type", "handle", "map", "elem"])
}

fn has_only(body: &Value, keys: &[&str]) -> bool {
    body.as_object().is_some_and(|it| it.keys().all(|key| keys.contains(&key.as_str())))
}

fn text_of<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn pair(element: &Value) -> Option<(&Value, &Value)> {
    match element.as_array()?.as_slice() {
        [key, value] => Some((key, value)),
        _ => None,
    }
}

fn goto(value: &Value) -> Option<&str> {
    value.get("goto")?.get("target")?.as_str().filter(|it| is_chain(it))
}

fn port_key(value: &Value) -> Option<PortKey> {
    match value.get("concat")?.as_array()?.as_slice() {
        [protocol, port] => {
            let port = Port::new(u16::try_from(port.as_u64()?).ok()?)?;
            Some((protocol.as_str()?.parse::<Protocol>().ok()?, port))
        }
        _ => None,
    }
}
