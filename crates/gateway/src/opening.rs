//! Finds an agent that takes a flow.
//!
//! One link is asked; when it stays silent the next is asked too, and the first that accepts has
//! the flow. Which one is asked when is decided in [`tunnel_proto::choice`]. Links that come while
//! a visitor waits are asked as well: an agent that comes back takes the visitors whom its dead
//! session left waiting.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tunnel::link::{Flow, OpenError};
use tunnel_proto::choice::{Answer, Failure, GIVE_UP_AFTER, Search, Step};
use tunnel_proto::message::Open;

use crate::cluster::{Cluster, Counted, Member};

/// A flow that an agent has taken.
pub(crate) struct Opened {
    pub(crate) flow: Box<dyn Flow>,
    /// Counts as the agent's flow as long as this lives.
    pub(crate) counted: Counted,
}

/// Finds an agent that takes the flow. While none is there, waits for `hold`.
pub(crate) async fn open(
    cluster: &Cluster,
    open: &Open,
    hold: Duration,
) -> Result<Opened, Failure> {
    let began = Instant::now();
    let mut reachable = cluster.reachable();
    let mut links = Links::default();
    let mut search = links.search(cluster, open, began);
    let mut asked = FuturesUnordered::new();
    loop {
        let until = match search.poll(began.elapsed()) {
            Step::Ask(link) => {
                let Some(member) = links.get(link) else {
                    search.handle_answer(&link, Answer::Lost);
                    continue;
                };
                tracing::trace!(visitor = %open.visitor, agent = member.agent, "asking");
                asked.push(async move {
                    let answer = member.link.open(open.clone()).await;
                    (link, member, answer)
                });
                continue;
            }
            Step::Wait(until) => began + until,
            Step::Failed(Failure::NoLink | Failure::Lost) if began.elapsed() < hold => began + hold,
            Step::Failed(failure) => {
                // One more may have come since; it has heard nothing of this flow.
                let more = links.search(cluster, open, began);
                if links.is_new() && began.elapsed() < GIVE_UP_AFTER {
                    search = more;
                    continue;
                }
                return Err(failure);
            }
            // Whoever wins is returned below.
            Step::Won(_) => return Err(Failure::Lost),
        };
        tokio::select! {
            Some((link, member, answer)) = asked.next() => {
                let answer = match answer {
                    Ok(flow) => return Ok(Opened { flow, counted: member.count() }),
                    Err(OpenError::Refused(refused)) => Answer::Refused(refused),
                    Err(OpenError::Ended | OpenError::NoneReady) => Answer::Lost,
                };
                search.handle_answer(&link, answer);
            }
            Ok(()) = reachable.changed() => {
                let more = links.search(cluster, open, began);
                if links.is_new() {
                    search = more;
                }
            }
            () = sleep_until(until) => {}
        }
        if began.elapsed() >= GIVE_UP_AFTER.max(hold) {
            return Err(Failure::Silence);
        }
    }
}

/// The links that a visitor has met, by number.
#[derive(Default)]
struct Links {
    met: Vec<Arc<Member>>,
    /// How many were met before the last search began.
    before: usize,
}

impl Links {
    /// A search among the links that can take the flow and were not met before.
    fn search(&mut self, cluster: &Cluster, open: &Open, began: Instant) -> Search<usize> {
        self.before = self.met.len();
        let mut order = Vec::new();
        for (candidate, member) in cluster.candidates(&open.backend) {
            if !self.met.iter().any(|it| Arc::ptr_eq(it, &member)) {
                order.push((self.met.len(), candidate));
                self.met.push(member);
            }
        }
        Search::new(order, began.elapsed())
    }

    /// Whether the last search has any link to ask.
    fn is_new(&self) -> bool {
        self.met.len() > self.before
    }

    fn get(&self, link: usize) -> Option<Arc<Member>> {
        self.met.get(link).map(Arc::clone)
    }
}
