//! Which remote forwards are wished, asked for, and there. Time counts from any fixed moment.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tunnel_proto::message::{PortState, Protocol, PublishedPort};

/// The shortest wait before a refused port is asked for again.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest.
const LONGEST: Duration = Duration::from_secs(3);

/// An address and a port on the server. No address means all of them.
pub(super) type Place = (Option<IpAddr>, u16);

/// The remote forwards of one session.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    forwards: BTreeMap<Place, Forward>,
}

#[derive(Debug)]
struct Forward {
    /// Wished; otherwise it is being given up.
    wished: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// To be asked for, not before this moment.
    Due { at: Duration, refusals: u32 },
    /// The server was asked and has not answered.
    Asked { refusals: u32 },
    /// The server listens.
    Listening,
    /// The server was asked to stop and has not answered.
    Cancelled,
}

/// What to ask the server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Request {
    Listen(Place),
    Cancel(Place),
}

impl Forwards {
    /// Wishes these and no others from now on.
    pub(super) fn wish(&mut self, places: impl IntoIterator<Item = Place>, now: Duration) {
        for forward in self.forwards.values_mut() {
            forward.wished = false;
        }
        let new = State::Due { at: now, refusals: 0 };
        for place in places {
            self.forwards.entry(place).or_insert(Forward { wished: true, state: new }).wished =
                true;
        }
        self.forwards.retain(|_, it| it.wished || !matches!(it.state, State::Due { .. }));
    }

    /// What to ask the server now.
    pub(super) fn requests(&mut self, now: Duration) -> Vec<Request> {
        let mut requests = Vec::new();
        for (place, forward) in &mut self.forwards {
            match forward.state {
                State::Due { at, refusals } if at <= now => {
                    forward.state = State::Asked { refusals };
                    requests.push(Request::Listen(*place));
                }
                State::Listening if !forward.wished => {
                    forward.state = State::Cancelled;
                    requests.push(Request::Cancel(*place));
                }
                State::Due { .. } | State::Asked { .. } | State::Listening | State::Cancelled => {}
            }
        }
        requests
    }

    /// The server has answered. `random` is uniform over all values.
    pub(super) fn answered(&mut self, request: Request, granted: bool, now: Duration, random: u32) {
        let (Request::Listen(place) | Request::Cancel(place)) = request;
        let Some(forward) = self.forwards.get_mut(&place) else { return };
        forward.state = match (request, forward.state, granted) {
            (Request::Listen(_), _, true) => State::Listening,
            (Request::Listen(_), State::Asked { refusals }, false) => {
                let limit = SHORTEST.saturating_mul(2 << refusals.min(8)).min(LONGEST);
                let share = f64::from(random) / f64::from(u32::MAX);
                let wait = SHORTEST + (limit - SHORTEST).mul_f64(share);
                State::Due { at: now + wait, refusals: refusals.saturating_add(1) }
            }
            // A server that does not stop would not listen again either.
            (Request::Cancel(_), _, _) => State::Due { at: now, refusals: 0 },
            (Request::Listen(_), state, false) => state,
        };
        if !forward.wished && matches!(forward.state, State::Due { .. }) {
            self.forwards.remove(&place);
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Duration> {
        let due = self.forwards.values().filter_map(|it| match it.state {
            State::Due { at, .. } => Some(at),
            State::Asked { .. } | State::Listening | State::Cancelled => None,
        });
        due.min()
    }

    /// What became of a place; `None` when the server has not said anything yet.
    pub(super) fn state(&self, place: &Place) -> Option<PortState> {
        match self.forwards.get(place)?.state {
            State::Listening => Some(PortState::Listening),
            State::Due { refusals: 0, .. } | State::Asked { refusals: 0 } | State::Cancelled => {
                None
            }
            State::Due { refusals, .. } | State::Asked { refusals } => {
                Some(PortState::InUse(refused(place.1, refusals)))
            }
        }
    }
}

/// Why a port cannot be published by SSH at all.
pub(super) fn impossible(port: &PublishedPort) -> Option<String> {
    if port.protocol == Protocol::Udp {
        return Some("an SSH server carries TCP only".to_owned());
    }
    if port.limits.new_per_second != 0 || port.limits.open != 0 {
        return Some(
            "an SSH server keeps no limits for single visitors; remove them, or use a gateway"
                .to_owned(),
        );
    }
    None
}

fn refused(port: u16, refusals: u32) -> String {
    let times = if refusals == 1 { "once".to_owned() } else { format!("{refusals} times") };
    format!(
        "the SSH server has refused port {port} {times} and is asked again: an earlier session that \
         it has not given up yet may hold it (see ClientAliveInterval), or another program, or the \
         account may not have it (AllowTcpForwarding, PermitListen, ports below 1024)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP: Place = (None, 8080);
    const HTTPS: Place = (None, 8443);

    fn ms(it: u64) -> Duration {
        Duration::from_millis(it)
    }

    #[test]
    fn a_refused_port_is_asked_for_again_until_it_is_free() {
        let mut forwards = Forwards::default();
        forwards.wish([HTTP], ms(0));
        assert_eq!(forwards.requests(ms(0)), [Request::Listen(HTTP)]);
        assert_eq!(forwards.requests(ms(0)), [], "one question at a time");
        assert_eq!(forwards.state(&HTTP), None);
        let mut now = ms(0);
        for waits in [200, 400, 800, 1600, 3000, 3000] {
            forwards.answered(Request::Listen(HTTP), false, now, u32::MAX);
            assert_eq!(forwards.next(), Some(now + ms(waits)));
            assert!(matches!(forwards.state(&HTTP), Some(PortState::InUse(_))));
            now += ms(waits);
            assert_eq!(forwards.requests(now - ms(1)), []);
            assert_eq!(forwards.requests(now), [Request::Listen(HTTP)]);
        }
        forwards.answered(Request::Listen(HTTP), true, now, 0);
        assert_eq!(forwards.state(&HTTP), Some(PortState::Listening));
        assert_eq!(forwards.next(), None);
    }

    #[test]
    fn waits_are_spread() {
        let mut forwards = Forwards::default();
        forwards.wish([HTTP], ms(0));
        forwards.requests(ms(0));
        forwards.answered(Request::Listen(HTTP), false, ms(0), 0);
        assert_eq!(forwards.next(), Some(SHORTEST));
    }

    #[test]
    fn what_is_not_wished_any_more_is_given_up() {
        let mut forwards = Forwards::default();
        forwards.wish([HTTP, HTTPS], ms(0));
        forwards.requests(ms(0));
        forwards.answered(Request::Listen(HTTP), true, ms(0), 0);
        // Before the server has answered for the other.
        forwards.wish([], ms(1));
        assert_eq!(forwards.requests(ms(1)), [Request::Cancel(HTTP)]);
        forwards.answered(Request::Listen(HTTPS), true, ms(2), 0);
        assert_eq!(forwards.requests(ms(2)), [Request::Cancel(HTTPS)]);
        forwards.answered(Request::Cancel(HTTP), true, ms(3), 0);
        forwards.answered(Request::Cancel(HTTPS), true, ms(3), 0);
        assert!(forwards.forwards.is_empty());
    }

    #[test]
    fn what_is_wished_again_while_it_is_given_up_comes_back() {
        let mut forwards = Forwards::default();
        forwards.wish([HTTP], ms(0));
        forwards.requests(ms(0));
        forwards.answered(Request::Listen(HTTP), true, ms(0), 0);
        forwards.wish([], ms(1));
        forwards.requests(ms(1));
        forwards.wish([HTTP], ms(2));
        assert_eq!(forwards.requests(ms(2)), []);
        forwards.answered(Request::Cancel(HTTP), true, ms(3), 0);
        assert_eq!(forwards.requests(ms(3)), [Request::Listen(HTTP)]);
    }
}
