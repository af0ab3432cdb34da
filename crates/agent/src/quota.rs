//! What to tell of the monthly traffic of gateways: once for each change of where it stands.
//!
//! Reports come every two seconds with other figures. What is told holds those of the moment at
//! which the standing changed, so that it is one Event and not one for each report. Every agent
//! keeps this, so that the next one that leads knows what was the case.

use std::collections::BTreeMap;
use std::time::Duration;

use planner::finding::Finding;
use planner::publish::{GatewayObserved, Publication, quota_finding};
use tokio::time::Instant;
use tunnel_proto::quota::Standing;

/// How long it is told that all is well again: long enough to be written when the API server is
/// away for a moment.
const NOTED: Duration = Duration::from_secs(600);

/// Where the traffic of each gateway stands, and what is told of it.
#[derive(Debug, Default)]
pub(crate) struct QuotaNews {
    gateways: BTreeMap<String, News>,
}

#[derive(Debug)]
struct News {
    standing: Standing,
    limit: u64,
    told: Option<Finding>,
    since: Instant,
}

impl QuotaNews {
    /// Takes in what gateways report, and returns what is to be told now.
    pub(crate) fn look(
        &mut self,
        publication: &Publication,
        observed: &BTreeMap<String, GatewayObserved>,
        now: Instant,
    ) -> Vec<Finding> {
        self.gateways.retain(|it, _| publication.gateways.contains_key(it));
        for name in publication.gateways.keys() {
            // Without a report nothing is known to have changed.
            let Some(report) = observed.get(name).and_then(|it| it.report.as_ref()) else {
                continue;
            };
            let Some(quota) = report.quota else {
                self.gateways.remove(name);
                continue;
            };
            let (standing, limit) = (quota.standing(), quota.limit);
            let before = self.gateways.get(name);
            if before.is_some_and(|it| (it.standing, it.limit) == (standing, limit)) {
                continue;
            }
            let was_well = before.is_none_or(|it| it.standing == Standing::Within);
            let is_news = standing != Standing::Within || !was_well;
            let told = is_news.then(|| quota_finding(publication, name, &quota));
            self.gateways.insert(name.clone(), News { standing, limit, told, since: now });
        }
        for news in self.gateways.values_mut() {
            if news.standing == Standing::Within && news.since + NOTED <= now {
                news.told = None;
            }
        }
        self.gateways.values().filter_map(|it| it.told.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use planner::finding::Severity;
    use tunnel_proto::message::{QuotaAction, QuotaReport, Report};

    use super::*;

    #[test]
    fn each_change_is_told_once_with_the_figures_of_its_moment() {
        let (mut news, begin) = (QuotaNews::default(), Instant::now());
        let mut look = |used: u64| told(&mut news, used, 1000, begin);
        assert_eq!(look(100), None);
        let near = look(812).expect("it is nearly used up");
        assert_eq!((near.severity, near.reason), (Severity::Warning, "QuotaNearlyUsed"));
        assert!(near.problem.contains("812 of 1000 bytes (81 %)"), "{}", near.problem);
        assert!(near.problem.contains("new ones are refused"), "what comes next: {near}");
        assert_eq!(look(900), Some(near), "no news");
        let over = look(1001).expect("it is used up");
        assert_eq!((over.severity, over.reason), (Severity::Warning, "QuotaExceeded"));
        assert_eq!(look(2000), Some(over));
        let well = look(3).expect("a month has begun");
        assert_eq!((well.severity, well.reason), (Severity::Note, "WithinQuota"));
    }

    #[test]
    fn that_all_is_well_again_is_not_told_for_ever() {
        let (mut news, begin) = (QuotaNews::default(), Instant::now());
        assert!(told(&mut news, 900, 1000, begin).is_some());
        assert!(told(&mut news, 0, 1000, begin).is_some());
        assert!(told(&mut news, 1, 1000, begin + NOTED - Duration::from_secs(1)).is_some());
        assert_eq!(told(&mut news, 2, 1000, begin + NOTED), None);
    }

    #[test]
    fn another_limit_is_news_where_it_does_not_help() {
        let (mut news, begin) = (QuotaNews::default(), Instant::now());
        let before = told(&mut news, 900, 1000, begin).expect("near");
        let after = told(&mut news, 900, 1100, begin).expect("still near");
        assert_ne!(before, after);
        assert_eq!(told(&mut news, 900, 9000, begin).map(|it| it.reason), Some("WithinQuota"));
        assert_eq!(news.look(&publication(), &BTreeMap::new(), begin).len(), 1, "no report");
    }

    fn told(news: &mut QuotaNews, used: u64, limit: u64, now: Instant) -> Option<Finding> {
        let quota = QuotaReport {
            used,
            limit,
            resets_at: 1_798_761_600,
            action: Some(QuotaAction::Stop),
            shape_bits_per_second: None,
        };
        let report = Some(Report { quota: Some(quota), ..Report::default() });
        let observed = GatewayObserved { report, ..GatewayObserved::default() };
        let mut told = news.look(&publication(), &[("fra1".to_owned(), observed)].into(), now);
        assert!(told.len() < 2, "{told:?}");
        told.pop()
    }

    fn publication() -> Publication {
        let gateways = [("fra1".to_owned(), Vec::new())].into();
        Publication { gateways, ..Publication::default() }
    }
}
