//! A rule as `nft -j` lists it, back to the spelling in which we write it.
//!
//! Only the expressions that we write are known. A rule with anything else in it becomes its
//! JSON text, which equals no rule of ours, so that it is seen as drift and removed.

use serde_json::Value;

use super::rule::source_set;
use crate::span::{Span, merged};

/// Spells the rule of a listing.
pub(crate) fn rule(body: &Value) -> String {
    // A comment makes it a rule that we did not write.
    let spelled = body.get("comment").is_none().then(|| statements(body.get("expr")?)).flatten();
    spelled.unwrap_or_else(|| body.get("expr").unwrap_or(body).to_string())
}

fn statements(expr: &Value) -> Option<String> {
    let words = expr.as_array()?.iter().map(statement).collect::<Option<Vec<_>>>()?;
    Some(without_implied_family(words).join(" "))
}

/// Some versions of nft list the match of the family beside the match that implies it.
fn without_implied_family(mut words: Vec<String>) -> Vec<String> {
    for (family, implied) in [("ipv4", "ip saddr"), ("ipv6", "ip6 saddr")] {
        if words.iter().any(|it| it.contains(implied)) {
            words.retain(|it| *it != format!("meta nfproto {family}"));
        }
    }
    words
}

fn statement(statement: &Value) -> Option<String> {
    let (kind, body) = only(statement)?;
    match kind {
        "match" => matching(body),
        "vmap" => Some(format!("{} vmap {}", operand(body.get("key")?)?, name(body.get("data")?)?)),
        "goto" | "jump" => Some(format!("{kind} {}", body.get("target")?.as_str()?)),
        "dnat" => dnat(body),
        "masquerade" if body.is_null() => Some("masquerade".to_owned()),
        _ => None,
    }
}

fn matching(body: &Value) -> Option<String> {
    let left = body.get("left")?;
    let right = body.get("right")?;
    let left_text = operand(left)?;
    match (body.get("op")?.as_str()?, left_text.as_str()) {
        // nft lists a test of flags as `in`.
        ("in", "ct status") => Some(format!("ct status {}", right.as_str()?)),
        ("==", "ip saddr" | "ip6 saddr") if name(right).is_none() => sources(&left_text, right),
        ("==", "oifname" | "iifname") => Some(format!("{left_text} \"{}\"", right.as_str()?)),
        ("==", _) => match right.get("set") {
            Some(set) => Some(format!("{left_text} {{ {} }}", protocols(set)?)),
            None => Some(format!("{left_text} {}", right.as_str()?)),
        },
        _ => None,
    }
}

/// `{ tcp, udp, sctp }`, whatever the order in the listing.
fn protocols(set: &Value) -> Option<String> {
    let set = set.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
    let known = ["tcp", "udp", "sctp"];
    let ordered: Vec<_> = known.into_iter().filter(|it| set.contains(it)).collect();
    (ordered.len() == set.len()).then(|| ordered.join(", "))
}

fn sources(left: &str, right: &Value) -> Option<String> {
    let spans = match right.get("set") {
        Some(set) => set.as_array()?.iter().map(span).collect::<Option<Vec<_>>>()?,
        None => vec![span(right)?],
    };
    Some(format!("{left} {}", source_set(&merged(spans))?))
}

fn span(value: &Value) -> Option<Span> {
    if let Some(prefix) = value.get("prefix") {
        let (address, length) = (prefix.get("addr")?.as_str()?, prefix.get("len")?.as_u64()?);
        return Span::parse(&format!("{address}/{length}"));
    }
    if let Some(range) = value.get("range") {
        return match range.as_array()?.as_slice() {
            [first, last] => {
                Span::between(first.as_str()?.parse().ok()?, last.as_str()?.parse().ok()?)
            }
            _ => None,
        };
    }
    Span::parse(value.as_str()?)
}

fn dnat(body: &Value) -> Option<String> {
    let known = ["family", "addr", "port"];
    if !body.as_object()?.keys().all(|it| known.contains(&it.as_str())) {
        return None;
    }
    let family = body.get("family")?.as_str()?;
    let address = body.get("addr")?;
    let to = match only(address) {
        Some(("map", map)) => chosen(map)?,
        _ => plain_address(address)?,
    };
    match body.get("port") {
        None => Some(format!("dnat {family} to {to}")),
        Some(Value::Number(port)) if family == "ip6" => {
            Some(format!("dnat {family} to [{to}]:{port}"))
        }
        Some(Value::Number(port)) => Some(format!("dnat {family} to {to}:{port}")),
        Some(port) => {
            let map = port.get("map")?;
            let (key, data) = (operand(map.get("key")?)?, name(map.get("data")?)?);
            Some(format!("dnat {family} to {to} : {key} map {data}"))
        }
    }
}

/// The choice between targets: a number and what each number stands for.
fn chosen(map: &Value) -> Option<String> {
    let number = match only(map.get("key")?)? {
        ("numgen", body) => {
            let plain = body.get("mode")?.as_str()? == "inc" && body.get("offset")?.as_u64()? == 0;
            plain.then(|| format!("numgen inc mod {}", body.get("mod").unwrap_or(&Value::Null)))?
        }
        ("jhash", body) => {
            let plain = body.get("offset").is_none_or(|it| it.as_u64() == Some(0));
            let (what, count) = (operand(body.get("expr")?)?, body.get("mod")?.as_u64()?);
            let seed = body.get("seed")?.as_u64()?;
            plain.then(|| format!("jhash {what} mod {count} seed {seed:#x}"))?
        }
        _ => return None,
    };
    let mut targets = Vec::new();
    for pair in map.get("data")?.get("set")?.as_array()? {
        let [index, target] = pair.as_array()?.as_slice() else { return None };
        targets.push((index.as_u64()?, target_text(target)?));
    }
    targets.sort();
    let targets: Vec<_> = targets.iter().map(|(index, it)| format!("{index} : {it}")).collect();
    Some(format!("{number} map {{ {} }}", targets.join(", ")))
}

fn target_text(target: &Value) -> Option<String> {
    match target.get("concat").and_then(Value::as_array).map(Vec::as_slice) {
        None => plain_address(target),
        Some([address, port]) => Some(format!("{} . {}", plain_address(address)?, port.as_u64()?)),
        Some(_) => None,
    }
}

/// An address as we spell it: nft and we shorten IPv6 differently in rare cases.
fn plain_address(value: &Value) -> Option<String> {
    value.as_str()?.parse::<std::net::IpAddr>().ok().map(|it| it.to_string())
}

fn operand(value: &Value) -> Option<String> {
    let (kind, body) = only(value)?;
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    match kind {
        "meta" => match text("key")? {
            key @ ("iifname" | "oifname") => Some(key.to_owned()),
            key @ ("l4proto" | "nfproto") => Some(format!("meta {key}")),
            _ => None,
        },
        "payload" => Some(format!("{} {}", text("protocol")?, text("field")?)),
        "fib" => {
            let flags = body.get("flags")?.as_array()?;
            let daddr = matches!(flags.as_slice(), [one] if one == "daddr");
            (text("result")? == "type" && daddr).then(|| "fib daddr type".to_owned())
        }
        "ct" => match (text("key")?, text("dir")) {
            ("status", None) => Some("ct status".to_owned()),
            ("proto-dst", Some("original")) => Some("ct original proto-dst".to_owned()),
            _ => None,
        },
        "concat" => {
            let parts = body.as_array()?.iter().map(operand).collect::<Option<Vec<_>>>()?;
            Some(parts.join(" . "))
        }
        _ => None,
    }
}

/// The name of a set or map, `@name`.
fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|it| it.starts_with('@'))
}

/// The single member of an object.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (key, body) = object.iter().next()?;
    (object.len() == 1).then_some((key.as_str(), body))
}
