//! Who may connect, decided before a byte is read.
//!
//! Where the kernel keeps the limits ([`crate::filter`]), most of this never has to refuse anyone;
//! it counts where the kernel may not, and for UDP. Allow lists are checked in any case.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tunnel_proto::message::{Limits, Range};

use crate::filter::contains;

/// Sources that are remembered for each port. Beyond, those that have nothing open are forgotten.
const SOURCES: usize = 65_536;

/// Why a visitor was not let in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum NotAdmitted {
    /// Its address is not in the allow list.
    NotAllowed,
    /// Its source opens too many connections a second.
    TooFast,
    /// Its source has too many connections open.
    TooMany,
}

/// The sources of one port.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    sources: Sources,
}

/// A visitor that was let in, until dropped.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// Where it is counted, if it is.
    counted: Option<(Sources, IpAddr)>,
}

type Sources = Arc<Mutex<HashMap<IpAddr, Source>>>;

#[derive(Debug)]
struct Source {
    open: u32,
    /// How many connections it may open at once, as of `at`.
    credit: f64,
    at: Instant,
}

impl Admission {
    /// Lets a visitor in, or says why not. `limits` are those that are kept here.
    pub(crate) fn admit(
        &self,
        visitor: IpAddr,
        allow_from: &[Range],
        limits: Limits,
        now: Instant,
    ) -> Result<Admitted, NotAdmitted> {
        if !allow_from.is_empty() && !allow_from.iter().any(|it| contains(it, visitor)) {
            return Err(NotAdmitted::NotAllowed);
        }
        if limits == Limits::default() {
            return Ok(Admitted { counted: None });
        }
        let key = network(visitor);
        let mut sources = lock(&self.sources);
        if sources.len() >= SOURCES && !sources.contains_key(&key) {
            sources.retain(|_, it| it.open > 0);
        }
        let burst = f64::from(limits.new_per_second);
        let source = sources.entry(key).or_insert(Source { open: 0, credit: burst, at: now });
        if limits.new_per_second > 0 {
            let passed = now.saturating_duration_since(source.at).as_secs_f64();
            source.credit = (source.credit + passed * burst).min(burst);
            source.at = now;
            if source.credit < 1.0 {
                return Err(NotAdmitted::TooFast);
            }
            source.credit -= 1.0;
        }
        if limits.open > 0 && source.open >= limits.open {
            return Err(NotAdmitted::TooMany);
        }
        source.open += 1;
        drop(sources);
        Ok(Admitted { counted: Some((Arc::clone(&self.sources), key)) })
    }

    /// Forgets sources that have nothing open and have been quiet for a second.
    pub(crate) fn tidy(&self, now: Instant) {
        let quiet = |it: &Source| now.saturating_duration_since(it.at).as_secs() >= 1;
        let mut sources = lock(&self.sources);
        sources.retain(|_, it| it.open > 0 || !quiet(it));
        if sources.is_empty() {
            sources.shrink_to_fit();
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some((sources, key)) = self.counted.take()
            && let Some(source) = lock(&sources).get_mut(&key)
        {
            source.open = source.open.saturating_sub(1);
        }
    }
}

/// Whoever has one IPv6 address has a /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        IpAddr::V4(_) => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_allow_list_lets_nobody_else_in() {
        let allow = [Range { address: [10, 0, 0, 0].into(), prefix: 8 }];
        let admit = |ip: &str| admit(&Admission::default(), ip, &allow, Limits::default());
        assert!(admit("10.1.2.3").is_ok());
        assert_eq!(admit("11.1.2.3").err(), Some(NotAdmitted::NotAllowed));
        assert_eq!(admit("2001:db8::1").err(), Some(NotAdmitted::NotAllowed));
    }

    #[test]
    fn a_source_may_have_so_many_open() {
        let admission = Admission::default();
        let limits = Limits { open: 2, new_per_second: 0 };
        let first = admit(&admission, "192.0.2.1", &[], limits).expect("one");
        let _second = admit(&admission, "192.0.2.1", &[], limits).expect("two");
        assert_eq!(admit(&admission, "192.0.2.1", &[], limits).err(), Some(NotAdmitted::TooMany));
        admit(&admission, "192.0.2.2", &[], limits).expect("another source");
        drop(first);
        admit(&admission, "192.0.2.1", &[], limits).expect("one went");
    }

    #[test]
    fn a_source_may_open_so_many_a_second() {
        let admission = Admission::default();
        let limits = Limits { open: 0, new_per_second: 2 };
        let start = Instant::now();
        let admit = |milliseconds| {
            let now = start + Duration::from_millis(milliseconds);
            admission.admit([192, 0, 2, 1].into(), &[], limits, now).err()
        };
        assert_eq!([admit(0), admit(0)], [None, None]);
        assert_eq!(admit(100), Some(NotAdmitted::TooFast));
        assert_eq!(admit(600), None);
        assert_eq!(admit(700), Some(NotAdmitted::TooFast));
        assert_eq!([admit(9000), admit(9000)], [None, None]);
        assert_eq!(admit(9000), Some(NotAdmitted::TooFast));
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let admission = Admission::default();
        let limits = Limits { open: 1, new_per_second: 0 };
        let _first = admit(&admission, "2001:db8::1", &[], limits).expect("one");
        assert_eq!(admit(&admission, "2001:db8::2", &[], limits).err(), Some(NotAdmitted::TooMany));
        admit(&admission, "2001:db8:0:1::1", &[], limits).expect("another network");
    }

    #[test]
    fn quiet_sources_are_forgotten() {
        let admission = Admission::default();
        let limits = Limits { open: 5, new_per_second: 5 };
        let open = admit(&admission, "192.0.2.1", &[], limits).expect("let in");
        drop(admit(&admission, "192.0.2.2", &[], limits).expect("let in"));
        admission.tidy(Instant::now() + Duration::from_secs(2));
        assert_eq!(lock(&admission.sources).len(), 1);
        drop(open);
        admission.tidy(Instant::now() + Duration::from_secs(2));
        assert_eq!(lock(&admission.sources).len(), 0);
    }

    fn admit(
        admission: &Admission,
        visitor: &str,
        allow_from: &[Range],
        limits: Limits,
    ) -> Result<Admitted, NotAdmitted> {
        admission.admit(address(visitor), allow_from, limits, Instant::now())
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }
}
