//! Finds an agent that takes a flow.
//!
//! One link is asked; when it stays silent the next is asked too, and the first that accepts has
//! the flow. Which one is asked when is decided in [`tunnel_proto::choice`].

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};
use tunnel::link::{Flow, OpenError};
use tunnel_proto::choice::{Answer, Failure, Search, Step};
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
    if hold.is_zero() {
        return search(cluster, open, began).await;
    }
    let mut reachable = cluster.reachable();
    loop {
        reachable.mark_unchanged();
        match search(cluster, open, Instant::now()).await {
            Err(Failure::NoLink | Failure::Lost) => {
                if !matches!(timeout_at(began + hold, reachable.changed()).await, Ok(Ok(()))) {
                    return Err(Failure::NoLink);
                }
            }
            ended => return ended,
        }
    }
}

async fn search(cluster: &Cluster, open: &Open, began: Instant) -> Result<Opened, Failure> {
    let candidates = cluster.candidates(&open.backend);
    let mut order = Vec::with_capacity(candidates.len());
    let mut members: Vec<(usize, Arc<Member>)> = Vec::with_capacity(candidates.len());
    for (index, candidate, member) in candidates {
        order.push((index, candidate));
        members.push((index, member));
    }
    let mut search = Search::new(order, began.elapsed());
    let mut asked = FuturesUnordered::new();
    loop {
        match search.poll(began.elapsed()) {
            Step::Ask(index) => {
                let Some((_, member)) = members.iter().find(|it| it.0 == index) else {
                    search.handle_answer(&index, Answer::Lost);
                    continue;
                };
                asked.push(async move { (index, member, member.link.open(open.clone()).await) });
            }
            Step::Wait(until) => {
                let Ok(Some((index, member, answer))) =
                    timeout_at(began + until, asked.next()).await
                else {
                    continue;
                };
                let answer = match answer {
                    Ok(flow) => {
                        return Ok(Opened { flow, counted: Arc::clone(member).count() });
                    }
                    Err(OpenError::Refused(refused)) => Answer::Refused(refused),
                    Err(OpenError::Ended | OpenError::NoneReady) => Answer::Lost,
                };
                search.handle_answer(&index, answer);
            }
            Step::Failed(failure) => return Err(failure),
            // Whoever wins is returned above.
            Step::Won(_) => return Err(Failure::Lost),
        }
    }
}
