//! What a host should look like, on its way from the engine to the host's task.
//!
//! Only what changed goes this way, because a host can have tens of thousands of forwards. A task
//! that is busy finds one wish that is the sum of all that were sent meanwhile.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use api::object::ObjectRef;
use planner::desired::{Forwarding, PortForwards};
use tokio::sync::watch;

/// What a host should look like, told by what is different from the last wish.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) news: News,
    /// Objects that cannot be read: what the host still has for them stays.
    pub(crate) keep: BTreeSet<ObjectRef>,
    /// Some objects cannot be read and nobody knows which: whatever the host has stays, unless
    /// another object wants its host port.
    pub(crate) keep_all: bool,
    /// When the oldest change came that this wish is the first to cover.
    pub(crate) changed: Option<Instant>,
}

/// What is different from the last wish.
#[derive(Debug)]
pub(crate) enum News {
    /// Perhaps everything: this is the whole.
    Whole(Box<Forwarding>),
    /// The forwards of these host ports; none, when only what is kept is different.
    Ports(PortForwards),
}

impl Wish {
    /// Makes this wish the sum of itself and a later one.
    fn add(&mut self, later: Self) {
        self.keep = later.keep;
        self.keep_all = later.keep_all;
        self.changed = self.changed.into_iter().chain(later.changed).min();
        match (&mut self.news, later.news) {
            (news, whole @ News::Whole(_)) => *news = whole,
            (News::Whole(forwarding), News::Ports(ports)) => forwarding.replace(ports),
            (News::Ports(all), News::Ports(ports)) => all.extend(ports),
        }
    }
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Wishes(watch::Sender<Mutex<Option<Wish>>>);

/// The task's end.
#[derive(Clone, Debug)]
pub(crate) struct WishInbox(watch::Receiver<Mutex<Option<Wish>>>);

/// The engine does not want the host kept any more.
#[derive(Debug)]
pub(crate) struct NotWanted;

/// Both ends, with no wish on its way.
pub(crate) fn wishes() -> (Wishes, WishInbox) {
    let (sender, receiver) = watch::channel(Mutex::new(None));
    (Wishes(sender), WishInbox(receiver))
}

impl Wishes {
    /// Sends a wish, on top of those that were not taken yet.
    pub(crate) fn send(&self, wish: Wish) {
        self.0.send_modify(|waiting| {
            let waiting = waiting.get_mut().unwrap_or_else(PoisonError::into_inner);
            match waiting {
                Some(earlier) => earlier.add(wish),
                None => *waiting = Some(wish),
            }
        });
    }
}

impl WishInbox {
    /// Takes the wish that is there, if one is.
    pub(crate) fn take(&mut self) -> Option<Wish> {
        self.0.borrow_and_update().lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until a wish comes that was not there at the last [`take`](Self::take).
    pub(crate) async fn changed(&mut self) -> Result<(), NotWanted> {
        self.0.changed().await.map_err(|_| NotWanted)
    }

    /// Waits until no wish can come any more.
    pub(crate) async fn closed(&self) {
        let mut wishes = self.0.clone();
        while wishes.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::object::ObjectKind;
    use api::port::{Port, Protocol};
    use planner::desired::{Exposure, Forward, ForwardKey, NodeSetName, Targets};

    use super::*;

    #[test]
    fn wishes_that_nobody_took_become_one() {
        let (wishes, mut inbox) = wishes();
        let begin = Instant::now();
        let later = begin + Duration::from_secs(1);
        let whole = Forwarding { forwards: [forward(80, 30080)].into(), ..Forwarding::default() };
        wishes.send(wish(News::Whole(Box::new(whole)), Some(begin)));
        wishes.send(wish(ports(&[(80, None), (81, Some(30081))]), Some(later)));
        wishes.send(wish(ports(&[(82, Some(30082))]), None));
        let sum = inbox.take().expect("a wish");
        let News::Whole(forwarding) = &sum.news else { panic!("{:?}", sum.news) };
        assert_eq!(forwarding.forwards, [forward(81, 30081), forward(82, 30082)].into());
        assert_eq!(sum.changed, Some(begin), "the oldest change waits longest");
        assert!(inbox.take().is_none());

        wishes.send(wish(ports(&[(80, Some(1)), (81, Some(1))]), None));
        wishes.send(wish(ports(&[(81, None)]), Some(later)));
        let sum = inbox.take().expect("a wish");
        let News::Ports(ports) = &sum.news else { panic!("{:?}", sum.news) };
        assert_eq!(ports.values().flatten().cloned().collect::<Vec<_>>(), [forward(80, 1)]);
        assert_eq!(ports.len(), 2, "a host port that is not forwarded any more is news too");
        assert_eq!(sum.changed, Some(later));
    }

    fn wish(news: News, changed: Option<Instant>) -> Wish {
        Wish { news, keep: BTreeSet::new(), keep_all: false, changed }
    }

    fn ports(ports: &[(u16, Option<u16>)]) -> News {
        let all = ports.iter().map(|(host, target)| {
            let forwards = target.map(|it| forward(*host, it)).into_iter().collect();
            ((Protocol::Tcp, port(*host)), forwards)
        });
        News::Ports(all.collect())
    }

    fn forward(host: u16, target: u16) -> (ForwardKey, Forward) {
        let (protocol, exposure) = (Protocol::Tcp, Exposure::Everywhere);
        let owner = ObjectRef::namespaced(ObjectKind::Service, "web", "blog");
        let targets = Targets::Nodes { set: NodeSetName::All, port: port(target) };
        let key = ForwardKey { protocol, port: port(host), exposure };
        (key, Forward { owner, targets, sources: None, affinity: false })
    }

    fn port(number: u16) -> Port {
        Port::new(number).expect("not zero")
    }
}
