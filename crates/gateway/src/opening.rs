//! Finds an agent that takes a flow.
//!
//! One link is asked; when it stays silent the next is asked too, and the first that accepts has
//! the flow. Which one is asked when is decided in [`tunnel_proto::choice`]. Links that come while
//! a visitor waits are asked as well: an agent that comes back takes the visitors whom its dead
//! session left waiting.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tunnel::link::{Flow, OpenError};
use tunnel_proto::choice::{Answer, Candidate, Failure, GIVE_UP_AFTER, Search, Step};
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
    let mut search = Search::new(links.more(cluster, open), began.elapsed());
    let mut asked = Asked(Vec::new());
    loop {
        let until = match search.poll(began.elapsed()) {
            Step::Ask(link) => {
                let Some(member) = links.get(link) else {
                    search.handle_answer(&link, Answer::Lost);
                    continue;
                };
                tracing::trace!(visitor = %open.visitor, agent = member.agent, "asking");
                asked.0.push(Box::pin(async move {
                    let answer = member.link.open(open.clone()).await;
                    (link, member, answer)
                }));
                continue;
            }
            Step::Wait(until) => began + until,
            Step::Failed(failure) => {
                // One more may have come since; it has heard nothing of this flow.
                let more = links.more(cluster, open);
                if !more.is_empty() && began.elapsed() < GIVE_UP_AFTER {
                    search.add(more, began.elapsed());
                    continue;
                }
                match failure {
                    Failure::NoLink | Failure::Lost if began.elapsed() < hold => began + hold,
                    Failure::NoLink | Failure::Lost | Failure::Refused(_) | Failure::Silence => {
                        return Err(failure);
                    }
                }
            }
            // Whoever wins is returned below.
            Step::Won(_) => return Err(Failure::Lost),
        };
        tokio::select! {
            (link, member, answer) = asked.next() => {
                let answer = match answer {
                    Ok(flow) => return Ok(Opened { flow, counted: member.count() }),
                    Err(OpenError::Refused(refused)) => Answer::Refused(refused),
                    Err(OpenError::Ended | OpenError::NoneReady) => Answer::Lost,
                };
                search.handle_answer(&link, answer);
            }
            Ok(()) = reachable.changed() => {
                search.add(links.more(cluster, open), began.elapsed());
            }
            () = sleep_until(until) => {}
        }
        if began.elapsed() >= GIVE_UP_AFTER.max(hold) {
            return Err(Failure::Silence);
        }
    }
}

/// Links that were asked and have not answered. A few at most: each is looked at whenever one may
/// have answered, without the wake of its own that a larger set needs.
struct Asked<F>(Vec<Pin<Box<F>>>);

impl<F: Future> Asked<F> {
    /// The next answer; none comes while nobody is asked. Can be cancelled without loss.
    async fn next(&mut self) -> F::Output {
        poll_fn(|cx| {
            for (at, asked) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                    self.0.swap_remove(at);
                    return Poll::Ready(answer);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The links that a visitor has met, by number.
#[derive(Default)]
struct Links {
    met: Vec<Arc<Member>>,
}

impl Links {
    /// The links that can take the flow and were not met before.
    fn more(&mut self, cluster: &Cluster, open: &Open) -> Vec<(usize, Candidate)> {
        let mut order = Vec::new();
        for (candidate, member) in cluster.candidates(&open.backend) {
            if !self.met.iter().any(|it| Arc::ptr_eq(it, &member)) {
                order.push((self.met.len(), candidate));
                self.met.push(member);
            }
        }
        order
    }

    fn get(&self, link: usize) -> Option<Arc<Member>> {
        self.met.get(link).map(Arc::clone)
    }
}
