//! What a month's traffic on a gateway is worth saying: in its condition, and as an Event.

use api::object::{ObjectKind, ObjectRef};
use k8s_openapi::jiff::Timestamp;
use tunnel_proto::message::{QuotaAction, QuotaReport};
use tunnel_proto::quota::Standing;

use crate::finding::{Finding, Severity};
use crate::publish::publication::Publication;
use crate::publish::verdict::Verdict;

const WITHIN: &str = "WithinQuota";
const NEAR: &str = "QuotaNearlyUsed";
const EXCEEDED: &str = "QuotaExceeded";

/// Whether there is traffic left. Says percents and not bytes, which would be another sentence with
/// every report.
pub(super) fn verdict(quota: &QuotaReport) -> Verdict {
    let end = end(quota);
    match quota.standing() {
        Standing::Within => Verdict::yes(WITHIN),
        Standing::Near => Verdict::yes(NEAR).with(format!(
            "{} % of the {} bytes of the month that ends {end} are used; beyond them {}",
            quota.percent(),
            quota.limit,
            will(quota)
        )),
        Standing::Over(_) => {
            let (limit, now) = (quota.limit, does(quota));
            Verdict::no(
                EXCEEDED,
                format!("all {limit} bytes of the month that ends {end} are used: {now}"),
            )
        }
    }
}

/// What to tell about a gateway's traffic at the moment when its [standing](QuotaReport::standing)
/// changes: a warning, or that all is well again.
///
/// It holds the bytes of that moment, so it should be made once for each change and then be kept.
#[must_use]
pub fn quota_finding(publication: &Publication, gateway: &str, quota: &QuotaReport) -> Finding {
    let asked = publication.attachments.edges.get(gateway).and_then(|it| it.bytes_per_month);
    let is_objects = asked == Some(quota.limit);
    let (field, where_) = match is_objects {
        true => ("spec.quota.bytesPerMonth", "spec.quota"),
        // Of both the stricter counts, so this is the gateway's own.
        false => ("clusters.quota.bytesPerMonth in the gateway's own file", "clusters.quota there"),
    };
    let used = format!("{} of {} bytes ({} %)", quota.used, quota.limit, quota.percent());
    let end = end(quota);
    let (severity, reason, problem, remedy) = match quota.standing() {
        Standing::Within => (
            Severity::Note,
            WITHIN,
            format!("{used} are used of the month that ends {end}: visitors are served as before"),
            "nothing is left to do".to_owned(),
        ),
        Standing::Near => (
            Severity::Warning,
            NEAR,
            format!("{used} are used of the month that ends {end}; beyond them {}", will(quota)),
            format!("allow more or another action in {where_}, or publish less"),
        ),
        Standing::Over(_) => (
            Severity::Warning,
            EXCEEDED,
            format!("{used} are used of the month that ends {end}: {}", does(quota)),
            format!("allow more or another action in {where_}, or wait for the next month"),
        ),
    };
    Finding {
        severity,
        reason,
        object: ObjectRef::cluster(ObjectKind::EdgeGateway, gateway),
        field: field.to_owned(),
        value: quota.limit.to_string(),
        problem,
        remedy,
    }
}

fn end(quota: &QuotaReport) -> String {
    let end = i64::try_from(quota.resets_at).ok().and_then(|it| Timestamp::from_second(it).ok());
    end.map_or_else(|| "later".to_owned(), |it| it.to_string())
}

fn will(quota: &QuotaReport) -> String {
    match quota.action {
        Some(QuotaAction::Warn) => "it is only said".to_owned(),
        Some(QuotaAction::Shape) => format!("all connections together get {}", rate(quota)),
        Some(QuotaAction::Stop) => {
            "open connections end and new ones are refused until then".to_owned()
        }
        None => "the gateway does what its quota says".to_owned(),
    }
}

fn does(quota: &QuotaReport) -> String {
    match quota.action {
        Some(QuotaAction::Warn) => "visitors are served as before".to_owned(),
        Some(QuotaAction::Shape) => format!("all connections together get {}", rate(quota)),
        Some(QuotaAction::Stop) => {
            "open connections have ended and new ones are refused".to_owned()
        }
        None => "the gateway does what its quota says".to_owned(),
    }
}

fn rate(quota: &QuotaReport) -> String {
    match quota.shape_bits_per_second {
        Some(bits) => format!("{bits} bit/s"),
        None => "little".to_owned(),
    }
}
