//! One document becomes objects and problems.

use std::collections::BTreeMap;
use std::path::Path;

use api::object::ObjectKind;
use planner::cluster_view::Object;
use planner::finding::Severity;
use serde::Deserialize;
use serde_saphyr::{Spanned, UserMessageFormatter};

use super::document::{Document, documents};
use super::header::{Header, Named};
use super::object::{check_names, read_object};
use crate::source::{Place, Problem, Unreadable};

/// How many characters of a line a message quotes.
const EXCERPT: usize = 80;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Its objects, in order, with the line on which each begins.
    pub(super) objects: Vec<(Object, u64)>,
    /// What is wrong with it.
    pub(super) problems: Vec<Problem>,
}

/// Parses a file, and reads `kinds`; known kinds that are not among them are left to other programs
/// that read the same file. Never panics, whatever the text.
pub(super) fn parse(path: &Path, text: &str, kinds: &[ObjectKind]) -> Parsed {
    let mut parser = Parser { path, kinds, parsed: Parsed::default() };
    for document in documents(text) {
        parser.document(document);
    }
    parser.parsed
}

#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    items: Option<Vec<Spanned<serde_json::Value>>>,
}

struct Parser<'a> {
    path: &'a Path,
    kinds: &'a [ObjectKind],
    parsed: Parsed,
}

/// Where in the file a problem is; counted from one.
#[derive(Clone, Copy)]
struct Spot {
    line: u64,
    column: u64,
}

impl Parser<'_> {
    fn document(&mut self, document: Document<'_>) {
        let start = Spot { line: document.line + 1, column: 1 };
        let header = match from_str::<Option<Header>>(document.text) {
            Ok(Some(header)) => header,
            Ok(None) => return,
            Err(error) => return self.yaml_error(document, &Header::guess(document.text), &error),
        };
        let kind = match header.named() {
            Named::List => return self.list(document, &header),
            Named::Other => return self.other(start, &header),
            Named::Kind(kind) if !self.kinds.contains(&kind) => return,
            Named::Kind(kind) => kind,
        };
        match serde_saphyr::with_deserializer_from_str_with_options(
            document.text,
            options(),
            |it| read_object(kind, it),
        ) {
            Ok((object, unknown)) => {
                let spots: Vec<Spot> = unknown.iter().map(|it| find_field(document, it)).collect();
                self.object(start, object, &unknown, &spots);
            }
            Err(error) => self.yaml_error(document, &header, &error),
        }
    }

    fn list(&mut self, document: Document<'_>, header: &Header) {
        let list = match from_str::<List>(document.text) {
            Ok(list) => list,
            Err(error) => return self.yaml_error(document, header, &error),
        };
        for (index, item) in list.items.unwrap_or_default().into_iter().enumerate() {
            let line = document.line + item.referenced.line().max(1);
            let spot = Spot { line, column: item.referenced.column() };
            self.item(spot, index, item.value);
        }
    }

    fn item(&mut self, spot: Spot, index: usize, value: serde_json::Value) {
        let header = match Header::deserialize(&value) {
            Ok(header) => header,
            Err(error) => {
                return self.broken(spot, Unreadable::Unknown, &format!("items[{index}]: {error}"));
            }
        };
        let kind = match header.named() {
            Named::Kind(kind) if !self.kinds.contains(&kind) => return,
            Named::Kind(kind) => kind,
            Named::List | Named::Other => return self.other(spot, &header),
        };
        match read_object(kind, value) {
            Ok((object, unknown)) => {
                let spots = vec![spot; unknown.len()];
                self.object(spot, object, &unknown, &spots);
            }
            Err(error) => {
                self.broken(spot, header.unreadable(), &format!("items[{index}]: {error}"));
            }
        }
    }

    /// Takes an object whose type is right; what is left is its name, and fields nobody knows.
    fn object(&mut self, start: Spot, object: Object, unknown: &[String], spots: &[Spot]) {
        let reference = object.reference();
        if let Err(problem) = check_names(&reference) {
            let problem = format!("{}: {problem}", reference.kind);
            return self.broken(start, Unreadable::Unknown, &problem);
        }
        let is_host = matches!(reference.kind, ObjectKind::Host | ObjectKind::EdgeGateway);
        for (field, &spot) in unknown.iter().zip(spots) {
            // A misspelt field of a Host could open internal forwards to strangers; one of an
            // EdgeGateway could grant what was not meant to be.
            let severity = if is_host { Severity::Error } else { Severity::Warning };
            let follows = if is_host {
                "the object is not read, and what it last said stays in effect"
            } else {
                "it has no effect"
            };
            let unreadable = Unreadable::Object(reference.clone());
            self.parsed.problems.push(Problem {
                place: self.place(spot),
                severity,
                problem: format!("{reference}: no such field: {field}; {follows}"),
                remedy: "correct its name or remove it".to_owned(),
                unreadable: if is_host { unreadable } else { Unreadable::Nothing },
            });
        }
        if !is_host || unknown.is_empty() {
            self.parsed.objects.push((object, start.line));
        }
    }

    fn other(&mut self, spot: Spot, header: &Header) {
        let version = header.api_version.as_deref();
        let (problem, unreadable) = match (version, header.kind.as_deref()) {
            (Some(version), Some(kind)) => {
                (format!("{kind} of {version} is not read"), Unreadable::Nothing)
            }
            (None, _) => ("apiVersion is missing".to_owned(), Unreadable::Unknown),
            (_, None) => ("kind is missing".to_owned(), Unreadable::Unknown),
        };
        let severity =
            if unreadable == Unreadable::Nothing { Severity::Warning } else { Severity::Error };
        self.parsed.problems.push(Problem {
            place: self.place(spot),
            severity,
            problem,
            remedy: remedy(self.kinds),
            unreadable,
        });
    }

    fn yaml_error(&mut self, document: Document<'_>, header: &Header, error: &serde_saphyr::Error) {
        let message = error.without_snippet().render_with_formatter(&UserMessageFormatter);
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let location = error.location();
        let outer = location.map_or((1, 1), |it| (it.line(), it.column()));
        let (message, (line, column)) = without_places(&message, outer);
        let line = line.max(1);
        // It counts from the document, and we from the file.
        let spot = Spot { line: document.line + line, column };
        let text = document.text.lines().nth(usize::try_from(line - 1).unwrap_or(0));
        let text = text.map(|it| it.trim().chars().take(EXCERPT).collect::<String>());
        let text = text.filter(|it| !it.is_empty()).map(|it| format!(": {it:?}"));
        self.broken(spot, header.unreadable(), &format!("{message}{}", text.unwrap_or_default()));
    }

    fn broken(&mut self, spot: Spot, unreadable: Unreadable, problem: &str) {
        let object = match &unreadable {
            Unreadable::Object(object) => format!("{object}: "),
            Unreadable::Nothing | Unreadable::Unknown => String::new(),
        };
        self.parsed.problems.push(Problem {
            place: self.place(spot),
            severity: Severity::Error,
            problem: format!("{object}{problem}"),
            remedy: "correct it; what it last said stays in effect until then".to_owned(),
            unreadable,
        });
    }

    fn place(&self, spot: Spot) -> Place {
        Place::File { path: self.path.to_owned(), line: spot.line, column: spot.column }
    }
}

/// Names the kinds that are read, the built-in ones first.
fn remedy(kinds: &[ObjectKind]) -> String {
    let mut names = BTreeMap::<&str, Vec<&str>>::new();
    for kind in kinds {
        names.entry(kind.api_version()).or_default().push(kind.name());
    }
    let built_in = names.remove("v1").unwrap_or_default().join(", ");
    let others = names.iter().map(|(version, names)| format!("{} ({version})", names.join(", ")));
    let others = others.collect::<Vec<_>>().join(" and ");
    format!("read are {built_in}, {others}, alone or in a List")
}

fn from_str<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// Generous for a `List` of a large cluster, and still an end to texts made to exhaust memory.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 50_000_000,
        },
        with_snippet: false,
    }
}

/// Takes the places out of a message, each of which was added behind what was there. The first is
/// the most exact; `outer`, the last, is what the error itself knows.
fn without_places(message: &str, outer: (u64, u64)) -> (String, (u64, u64)) {
    let place = |text: &str| {
        let (line, column) = text.split_once(", column ")?;
        Some((line.parse().ok()?, column.parse().ok()?))
    };
    let mut rest = message;
    let mut innermost = outer;
    while let Some((before, last)) = rest.rsplit_once(" at line ")
        && let Some(found) = place(last)
    {
        (rest, innermost) = (before, found);
    }
    let own = format!(" at line {}, column {}", outer.0, outer.1);
    (rest.replace(&own, ""), innermost)
}

/// Where the last part of the path of a field stands, or else the document.
fn find_field(document: Document<'_>, path: &str) -> Spot {
    let name = path.rsplit('.').next().unwrap_or(path);
    let lines = (1..).zip(document.text.lines());
    let found = lines.into_iter().find_map(|(line, text)| {
        let start = text.find(name)?;
        let is_key = text[start + name.len()..].trim_start_matches(['"', '\'']).starts_with(':')
            && text[..start].chars().all(|it| " \t-\"'".contains(it));
        is_key.then(|| Spot { line: document.line + line, column: start as u64 + 1 })
    });
    found.unwrap_or(Spot { line: document.line + 1, column: 1 })
}
