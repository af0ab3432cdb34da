//! Reading one key in two vocabularies, and telling about both.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::exposure::Exposure;
use super::host_ports::HostPorts;
use super::key;
use crate::name::ObjectName;
use crate::problem::{Problem, Reason};
use crate::source_range::SourceRanges;

/// The most bytes that the value of an annotation may have: as many as Kubernetes allows all
/// annotations of an object together.
const MAX_BYTES: usize = HostPorts::MAX_BYTES;

/// Reads keys of one map and gathers what is wrong with them.
pub(super) struct Vocabulary<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

static NONE: BTreeMap<String, String> = BTreeMap::new();

impl<'a> Vocabulary<'a> {
    pub(super) fn new(annotations: Option<&'a BTreeMap<String, String>>) -> Self {
        Self { annotations: annotations.unwrap_or(&NONE), problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.annotations.contains_key(key)
    }

    /// Host ports, in either vocabulary.
    pub(super) fn host_ports(&mut self) -> Option<HostPorts> {
        let keys = [key::HOST_PORTS, key::EPOK_EXTERNAL_PORTS, key::EPOK_EXTERNAL_PORT];
        self.first_of(keys, |value| {
            value.parse::<HostPorts>().map_err(|it| (it.to_string(), it.remedy()))
        })
    }

    /// Source ranges under the keys given, the first of which counts.
    pub(super) fn sources<const N: usize>(
        &mut self,
        keys: [&'static str; N],
    ) -> Option<SourceRanges> {
        self.first_of(keys, |value| {
            value.parse::<SourceRanges>().map_err(|it| (it.to_string(), it.remedy()))
        })
    }

    /// Names of Hosts; `None` for every Host.
    pub(super) fn hosts(&mut self) -> Option<BTreeSet<ObjectName>> {
        const REMEDY: &str = "write the names of Host objects, separated by commas, or leave the \
                              annotation out for all";
        self.first_of([key::HOST], |value| {
            let names = value.split(',').map(str::trim).filter(|it| !it.is_empty());
            let names = names.map(str::parse).collect::<Result<BTreeSet<ObjectName>, _>>();
            let names = names.map_err(|it| (it.to_string(), REMEDY))?;
            if names.is_empty() {
                return Err((
                    "the list is empty, so that no host would forward".to_owned(),
                    REMEDY,
                ));
            }
            Ok(names)
        })
    }

    /// Whether forwards stay off the external interface.
    pub(super) fn internal(&mut self) -> bool {
        self.switch(key::INTERNAL, key::EPOK_INTERNAL)
    }

    /// The exposure that `internal` and `external` ask for together.
    pub(super) fn exposure(&mut self) -> Exposure {
        let internal = self.internal();
        let external = self.switch(key::EXTERNAL, key::EPOK_EXTERNAL);
        match (internal, external) {
            (false, false) => Exposure::Everywhere,
            (true, false) => Exposure::Internal,
            (false, true) => Exposure::External,
            (true, true) => {
                let keys = [key::EXTERNAL, key::EPOK_EXTERNAL];
                let key = keys.into_iter().find(|it| self.has(it)).unwrap_or(key::EXTERNAL);
                self.refuse(
                    key,
                    "internal and external together leave no interface",
                    "keep one of the two annotations",
                );
                Exposure::Everywhere
            }
        }
    }

    /// Our switch, or the predecessor's: `"true"` or `"false"` against mere presence.
    ///
    /// A value of ours that cannot be understood counts as on, for callers that go on in spite of
    /// the problem: every switch narrows what is reachable.
    pub(super) fn switch(&mut self, ours: &'static str, theirs: &'static str) -> bool {
        let Some(value) = self.annotations.get(ours) else {
            return self.has(theirs);
        };
        let on = match value.trim() {
            "true" => true,
            "false" => false,
            _ => {
                let problem = "expected true or false";
                let remedy = r#"write "true" or "false", with quotes, or leave it out for false"#;
                self.problems.push(Problem::invalid(ours, value, problem, remedy));
                return true;
            }
        };
        if !on && self.has(theirs) {
            self.overridden(theirs, ours, value);
        }
        on
    }

    /// Reports keys of ours that mean nothing on this kind of object, because they are misspelt
    /// or belong to another kind.
    pub(super) fn warn_of_unknown(&mut self, kind: &str, known: &[&str]) {
        let known_elsewhere = [key::HOST_PORTS, key::HOST, key::INTERNAL, key::EXTERNAL]
            .into_iter()
            .chain([key::ALLOW_FROM, key::EXCLUDE])
            .chain(key::OF_GATEWAYS)
            .collect::<BTreeSet<_>>();
        let ours = self.annotations.iter().filter(|(it, _)| it.starts_with(key::PREFIX));
        // What a Service asks of gateways is read where they are the matter.
        let silent = |it: &str| kind == "Service" && key::OF_GATEWAYS.contains(&it);
        let unknown = ours.filter(|(it, _)| !known.contains(&it.as_str()) && !silent(it));
        for (key, value) in unknown {
            let problem = if known_elsewhere.contains(key.as_str()) {
                format!("has no effect on a {kind}")
            } else {
                "is not a known annotation and has no effect".to_owned()
            };
            let remedy = format!("a {kind} may have {}", known.join(", "));
            self.problems.push(Problem::new(Reason::NoEffect, key, value, problem, remedy));
        }
    }

    /// Reports one key that has no effect on this kind of object.
    pub(super) fn warn_of(&mut self, key: &'static str, problem: &str, remedy: &str) {
        if let Some(value) = self.annotations.get(key) {
            self.problems.push(Problem::new(Reason::NoEffect, key, value, problem, remedy));
        }
    }

    /// Reports a value that contradicts another one.
    pub(super) fn refuse(&mut self, key: &'static str, problem: &str, remedy: &str) {
        let value = self.annotations.get(key).map_or("", String::as_str);
        self.problems.push(Problem::invalid(key, value, problem, remedy));
    }

    /// Reads the first key that is there. A later one that says something else is reported; a
    /// later one that cannot be understood says something else.
    pub(super) fn first_of<T: PartialEq, const N: usize>(
        &mut self,
        keys: [&'static str; N],
        read: impl Fn(&str) -> Result<T, (String, &'static str)>,
    ) -> Option<T> {
        let mut found = keys.iter().filter_map(|it| Some((*it, self.annotations.get(*it)?)));
        let (key, value) = found.next()?;
        let others: Vec<_> = found.collect();
        if value.len() > MAX_BYTES {
            let problem = format!("the value has {} bytes, the limit is {MAX_BYTES}", value.len());
            self.problems.push(Problem::invalid(key, value, problem, "write a shorter value"));
            return None;
        }
        let result = match read(value) {
            Ok(result) => result,
            Err((problem, remedy)) => {
                self.problems.push(Problem::invalid(key, value, problem, remedy));
                return None;
            }
        };
        for (other, other_value) in others {
            let same =
                other_value.len() <= MAX_BYTES && read(other_value).is_ok_and(|it| it == result);
            if !same {
                self.overridden(other, key, value);
            }
        }
        Some(result)
    }

    fn overridden(&mut self, loser: &str, winner: &str, winning: &str) {
        let value = self.annotations.get(loser).map_or("", String::as_str);
        let winning = crate::problem::excerpt(winning);
        let problem = format!("has no effect, because {winner} says `{winning}`");
        let remedy = format!("remove {loser}, or make both say the same");
        self.problems.push(Problem::new(Reason::Overridden, loser, value, problem, remedy));
    }
}
