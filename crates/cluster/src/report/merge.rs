//! What has to be written so that a status says what it should. No API and no clock here: what an
//! object says comes as JSON, and so does what it should say.

use api::gateway_api::CONTROLLER_NAME;
use api::object::ObjectKind;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::PUBLISHED;

/// The whole of our part of a status, to be applied; `None` when the object says it already.
///
/// Times of conditions need not be right in `wanted`: a condition whose status is unchanged keeps
/// the time that it has. What others wrote stays: parents of routes that are not ours, conditions of
/// other types.
pub(super) fn status(
    kind: ObjectKind,
    wanted: &Value,
    says: &Value,
    now: Timestamp,
) -> Option<Value> {
    let mut wanted = wanted.clone();
    if let Some(fields) = wanted.as_object_mut() {
        fields.retain(|_, it| !is_empty(it));
    }
    if is_route(kind) {
        let parents = parents(&wanted["parents"], &says["parents"]);
        wanted["parents"] = Value::Array(parents);
    }
    keep_times(&mut wanted, says, now);
    (!is_said(kind, &wanted, says)).then_some(wanted)
}

/// Whether statuses of the kind are a list that several controllers share.
pub(super) fn is_route(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::TcpRoute | ObjectKind::UdpRoute | ObjectKind::TlsRoute | ObjectKind::HttpRoute
    )
}

/// The list is written as a whole (`listType: atomic`), so it holds what others said, in the order
/// that it had.
fn parents(wanted: &Value, says: &Value) -> Vec<Value> {
    let mut wanted: Vec<Value> = wanted.as_array().cloned().unwrap_or_default();
    let mut parents = Vec::new();
    for said in says.as_array().into_iter().flatten() {
        if said["controllerName"] != CONTROLLER_NAME {
            parents.push(said.clone());
        } else if let Some(at) = wanted.iter().position(|it| same_parent(it, said)) {
            parents.push(wanted.remove(at));
        }
    }
    parents.extend(wanted);
    parents
}

/// Whether two entries are about one parent.
fn same_parent(one: &Value, other: &Value) -> bool {
    one["controllerName"] == other["controllerName"] && {
        // The API server fills in what was left out.
        let part = |entry: &Value, field: &str| entry["parentRef"][field].clone();
        let default = |value: Value, default: &str| {
            if value.is_null() { Value::from(default) } else { value }
        };
        ["name", "namespace", "sectionName", "port"]
            .iter()
            .all(|field| part(one, field) == part(other, field))
            && default(part(one, "kind"), "Gateway") == default(part(other, "kind"), "Gateway")
    }
}

/// Gives every condition of `wanted` the time that it has in `says`, or `now` where its status is
/// another one.
fn keep_times(wanted: &mut Value, says: &Value, now: Timestamp) {
    match wanted {
        Value::Array(items) => {
            for item in items {
                let said = says.as_array().into_iter().flatten().find(|it| is_about(item, it));
                keep_times(item, said.unwrap_or(&Value::Null), now);
            }
        }
        Value::Object(fields) => {
            if is_condition(fields) {
                let is_same = says["status"] == fields["status"] && says["status"].is_string();
                let time = &says["lastTransitionTime"];
                // The API keeps whole seconds; more would differ from what is read back.
                let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
                let time = if is_same && time.is_string() { time.clone() } else { seconds.into() };
                fields.insert("lastTransitionTime".to_owned(), time);
                return;
            }
            for (name, value) in fields {
                // What others said of their parents is theirs, times included.
                keep_times(value, &says[name.as_str()], now);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_condition(fields: &Map<String, Value>) -> bool {
    ["type", "status", "reason"].iter().all(|it| fields.contains_key(*it))
}

/// Whether two items of a list are about one thing.
fn is_about(one: &Value, other: &Value) -> bool {
    if !one["parentRef"].is_null() {
        return same_parent(one, other);
    }
    ["type", "name"]
        .iter()
        .find(|it| !one[**it].is_null())
        .is_some_and(|key| one[*key] == other[*key])
}

/// Whether the object says all that is wanted, and nothing of ours beyond it.
fn is_said(kind: ObjectKind, wanted: &Value, says: &Value) -> bool {
    let (Some(wanted), empty) = (wanted.as_object(), Map::new()) else { return true };
    let says = says.as_object().unwrap_or(&empty);
    let published = |conditions: Option<&Value>| {
        let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
        conditions.filter(|it| it["type"] == PUBLISHED).count()
    };
    // The one condition that a Service may cease to need.
    if published(says.get("conditions")) > published(wanted.get("conditions")) {
        return false;
    }
    let all_said = wanted.iter().all(|(field, wanted)| {
        let said = says.get(field).unwrap_or(&Value::Null);
        if field == "conditions" { has_conditions(wanted, said) } else { same(wanted, said) }
    });
    // Of a Service, others write what we do not.
    let no_more = kind == ObjectKind::Service
        || says
            .iter()
            .filter(|(field, said)| *field != "conditions" && !is_void(said))
            .all(|(field, _)| wanted.contains_key(field));
    all_said && no_more
}

/// Conditions of other types are other people's.
fn has_conditions(wanted: &Value, says: &Value) -> bool {
    let said = says.as_array().map(Vec::as_slice).unwrap_or_default();
    wanted.as_array().into_iter().flatten().all(|wanted| {
        said.iter().find(|it| it["type"] == wanted["type"]).is_some_and(|it| same(wanted, it))
    })
}

/// Whether two values say the same: the order of named items does not count, nor does a field that
/// the API server filled in or dropped because it says nothing.
fn same(wanted: &Value, said: &Value) -> bool {
    match (wanted, said) {
        (Value::Array(wanted), Value::Array(said)) => {
            let is_named = |it: &Value| it["name"].is_string() || it["type"].is_string();
            wanted.len() == said.len()
                && if wanted.iter().all(is_named) && said.iter().all(is_named) {
                    wanted.iter().all(|it| said.iter().any(|other| same(it, other)))
                } else {
                    wanted.iter().zip(said).all(|(it, other)| same(it, other))
                }
        }
        (Value::Object(wanted), Value::Object(said)) => {
            wanted.iter().all(|(field, wanted)| match said.get(field) {
                Some(said) => same(wanted, said),
                None => is_void(wanted),
            })
        }
        _ => wanted == said || (is_void(wanted) && is_void(said)),
    }
}

/// Whether it says nothing, however deep one looks.
fn is_void(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(is_void),
        Value::Null | Value::Array(_) | Value::String(_) | Value::Bool(_) | Value::Number(_) => {
            is_empty(value)
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_said_already_is_not_written_again() {
        let wanted = json!({ "conditions": [condition("Accepted", "True", 3)] });
        let said = json!({ "conditions": [
            at("2026-01-01T00:00:00Z", condition("Other", "False", 1)),
            at("2026-01-01T00:00:00Z", condition("Accepted", "True", 3)),
        ]});
        check(ObjectKind::Gateway, &wanted, &said, expect!["nothing"]);
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let said =
            json!({ "conditions": [at("2026-01-01T00:00:00Z", condition("Accepted", "True", 3))] });
        let wanted = json!({ "conditions": [condition("Accepted", "True", 4)] });
        check(
            ObjectKind::Gateway,
            &wanted,
            &said,
            expect![[
                r#"{"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","observedGeneration":4,"reason":"R","status":"True","type":"Accepted"}]}"#
            ]],
        );
        let wanted = json!({ "conditions": [condition("Accepted", "False", 4)] });
        check(
            ObjectKind::Gateway,
            &wanted,
            &said,
            expect![[
                r#"{"conditions":[{"lastTransitionTime":"2026-07-07T07:07:07Z","observedGeneration":4,"reason":"R","status":"False","type":"Accepted"}]}"#
            ]],
        );
    }

    #[test]
    fn listeners_are_known_by_their_names() {
        let listener = |name: &str, attached: u32, condition: Value| json!({ "name": name, "attachedRoutes": attached, "conditions": [condition] });
        let time = "2026-01-01T00:00:00Z";
        let said = json!({ "listeners": [
            listener("b", 0, at(time, condition("Programmed", "True", 1))),
            listener("a", 1, at(time, condition("Programmed", "True", 1))),
        ]});
        let same = json!({ "listeners": [
            listener("a", 1, condition("Programmed", "True", 1)),
            listener("b", 0, condition("Programmed", "True", 1)),
        ]});
        check(ObjectKind::Gateway, &same, &said, expect!["nothing"]);
        let fewer = json!({ "listeners": [listener("a", 1, condition("Programmed", "True", 1))] });
        check(
            ObjectKind::Gateway,
            &fewer,
            &said,
            expect![[
                r#"{"listeners":[{"attachedRoutes":1,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","observedGeneration":1,"reason":"R","status":"True","type":"Programmed"}],"name":"a"}]}"#
            ]],
        );
    }

    #[test]
    fn what_is_no_longer_so_is_taken_back() {
        let said = json!({ "addresses": [{ "type": "IPAddress", "value": "192.0.2.1" }] });
        check(ObjectKind::Gateway, &json!({ "addresses": [] }), &said, expect!["{}"]);
    }

    #[test]
    fn parents_of_other_controllers_stay() {
        let parent = |controller: &str, name: &str, status: &str| {
            let time = "2026-01-01T00:00:00Z";
            json!({ "controllerName": controller, "parentRef": { "name": name },
                "conditions": [at(time, condition("Accepted", status, 1))] })
        };
        let said = json!({ "parents": [
            parent("example.com/other", "g", "False"),
            parent(CONTROLLER_NAME, "gone", "True"),
            parent(CONTROLLER_NAME, "g", "True"),
        ]});
        let wanted = json!({ "parents": [parent(CONTROLLER_NAME, "g", "True")] });
        let written = status(ObjectKind::TcpRoute, &wanted, &said, now()).expect("one is gone");
        let names: Vec<_> = written["parents"].as_array().expect("a list").iter().collect();
        assert_eq!(names, [&said["parents"][0], &said["parents"][2]]);

        // And all of ours go when nothing of ours is wanted.
        let written = status(ObjectKind::TcpRoute, &json!({}), &said, now()).expect("ours go");
        assert_eq!(written["parents"], json!([said["parents"][0]]));
        assert_eq!(status(ObjectKind::TcpRoute, &json!({}), &written, now()), None);
    }

    #[test]
    fn of_a_service_only_our_condition_and_addresses_matter() {
        let said = json!({ "conditions": [at("2026-01-01T00:00:00Z", condition("Other", "True", 1))],
            "loadBalancer": {} });
        check(ObjectKind::Service, &json!({}), &said, expect!["nothing"]);
        let said =
            json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "Proxy" }] } });
        check(ObjectKind::Service, &said.clone(), &said, expect!["nothing"]);
        check(ObjectKind::Service, &json!({}), &said, expect!["nothing"]);
        let none = json!({ "loadBalancer": { "ingress": [] } });
        check(ObjectKind::Service, &none, &said, expect![[r#"{"loadBalancer":{"ingress":[]}}"#]]);
        check(ObjectKind::Service, &none, &json!({ "loadBalancer": {} }), expect!["nothing"]);
        check(ObjectKind::Service, &none, &json!({}), expect!["nothing"]);
    }

    #[test]
    fn a_service_loses_our_condition_when_nobody_asks_any_more() {
        let ours = at("2026-01-01T00:00:00Z", condition(PUBLISHED, "True", 1));
        check(ObjectKind::Service, &json!({}), &json!({ "conditions": [ours] }), expect!["{}"]);
    }

    fn now() -> Timestamp {
        "2026-07-07T07:07:07.123Z".parse().expect("a time")
    }

    fn condition(type_: &str, status: &str, generation: u32) -> Value {
        json!({ "type": type_, "status": status, "reason": "R", "observedGeneration": generation })
    }

    fn at(time: &str, mut condition: Value) -> Value {
        condition["lastTransitionTime"] = json!(time);
        condition
    }

    #[track_caller]
    fn check(kind: ObjectKind, wanted: &Value, says: &Value, expected: Expect) {
        let written = status(kind, wanted, says, now());
        expected.assert_eq(&written.map_or("nothing".to_owned(), |it| it.to_string()));
    }
}
