//! A finding as an Event of `events.k8s.io/v1`.

use api::object::ObjectRef;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use planner::finding::{Finding, Severity};
use sha2::{Digest, Sha256};

/// Who tells of findings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speaker<'a> {
    /// The program, as Events name it.
    pub(super) controller: &'a str,
    /// Its replica.
    pub(super) identity: &'a str,
    /// What it was about to do.
    pub(super) action: &'a str,
}

/// The longest note that the API server accepts, in bytes.
const NOTE_BYTES: usize = 1024;

/// How much of a value a note quotes.
const VALUE_CHARACTERS: usize = 100;

/// Builds the Event that tells of a finding.
///
/// Its name follows from the finding and the object's `uid`, so that the same finding, told by
/// another replica or after a restart, is the same Event.
pub(super) fn event(finding: &Finding, uid: &str, by: Speaker<'_>, now: Timestamp) -> Event {
    let Finding { object, field, value, problem, remedy, reason, severity } = finding;
    // The remedy stands last, and is what matters: a long value must not push it out.
    let value: String = value.chars().take(VALUE_CHARACTERS).collect();
    let note = format!("{field}: {value:?}: {problem}; {remedy}");
    Event {
        metadata: ObjectMeta {
            name: Some(name(finding, uid)),
            namespace: Some(namespace(object).to_owned()),
            ..Default::default()
        },
        event_time: Some(MicroTime(now)),
        regarding: Some(ObjectReference {
            api_version: Some(object.kind.api_version().to_owned()),
            kind: Some(object.kind.to_string()),
            namespace: object.namespace.clone(),
            name: Some(object.name.clone()),
            uid: Some(uid.to_owned()),
            ..Default::default()
        }),
        type_: Some(type_(*severity).to_owned()),
        reason: Some((*reason).to_owned()),
        action: Some(by.action.to_owned()),
        note: Some(shorten(note)),
        reporting_controller: Some(by.controller.to_owned()),
        reporting_instance: Some(by.identity.chars().take(128).collect()),
        ..Default::default()
    }
}

/// The two types that Kubernetes knows.
fn type_(severity: Severity) -> &'static str {
    match severity {
        Severity::Error | Severity::Warning => "Warning",
        Severity::Note => "Normal",
    }
}

/// The namespace of Events about an object: those about cluster-scoped ones are in `default`.
pub(super) fn namespace(object: &ObjectRef) -> &str {
    object.namespace.as_deref().unwrap_or("default")
}

/// The name of the Event.
pub(super) fn name(finding: &Finding, uid: &str) -> String {
    let Finding { severity, reason, object, field, value, problem, remedy } = finding;
    let mut hash = Sha256::new();
    for part in [uid, &format!("{severity:?}"), reason, field, value, problem, remedy] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize().iter().take(8).map(|it| format!("{it:02x}")).collect::<String>();
    // A name may have 253 characters.
    let object: String = object.name.chars().take(253 - 1 - hash.len()).collect();
    format!("{}.{hash}", object.trim_end_matches(['.', '-']))
}

fn shorten(mut note: String) -> String {
    if note.len() > NOTE_BYTES {
        let end = (0..=NOTE_BYTES - '…'.len_utf8()).rev().find(|it| note.is_char_boundary(*it));
        note.truncate(end.unwrap_or(0));
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use api::object::ObjectKind;

    use super::*;

    #[test]
    fn what_is_wrong_is_a_warning_and_what_is_good_to_know_is_not() {
        let type_ = |severity: Severity| {
            let finding = Finding {
                severity,
                reason: "WithinQuota",
                object: ObjectRef::cluster(ObjectKind::EdgeGateway, "fra1"),
                field: "spec.quota.bytesPerMonth".to_owned(),
                value: "1000".to_owned(),
                problem: "a month has begun".to_owned(),
                remedy: "nothing is left to do".to_owned(),
            };
            let by =
                Speaker { controller: "portcullis.dev/agent", identity: "a", action: "Publish" };
            event(&finding, "uid", by, Timestamp::UNIX_EPOCH).type_
        };
        assert_eq!(type_(Severity::Error).as_deref(), Some("Warning"));
        assert_eq!(type_(Severity::Warning).as_deref(), Some("Warning"));
        assert_eq!(type_(Severity::Note).as_deref(), Some("Normal"));
    }
}
