//! Where two tables may differ: anywhere, or at a few host ports of which that is known.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::table::{Chain, Element, Name, PortKey, Table};

/// Where two tables may differ.
#[derive(Clone, Debug, Default)]
pub(crate) enum Scope {
    /// Anywhere.
    #[default]
    Everywhere,
    /// In the elements of these host ports and in these chains, and nowhere else.
    Within(Touched),
}

/// Some host ports, and the chains that they lead to or led to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    pub(crate) ports: BTreeSet<PortKey>,
    pub(crate) chains: BTreeSet<Name>,
}

/// A key, the value that it had and the value that it has.
pub(crate) type Pair<K, V> = (K, Option<V>, Option<V>);

impl Scope {
    /// Takes in what was touched since.
    pub(crate) fn extend(&mut self, since: Touched) {
        match self {
            Self::Everywhere => {}
            Self::Within(touched) => {
                touched.ports.extend(since.ports);
                touched.chains.extend(since.chains);
            }
        }
    }

    /// The chains that may differ, in order, as they were and as they are.
    pub(crate) fn chains<'a>(
        &'a self,
        new: &'a Table,
        old: &'a Table,
    ) -> Vec<Pair<&'a Name, &'a Chain>> {
        match self {
            Self::Everywhere => differing(&new.chains, &old.chains),
            Self::Within(touched) => {
                let pair = |it: &'a Name| (it, old.chains.get(it), new.chains.get(it));
                touched.chains.iter().map(pair).filter(|(_, was, is)| was != is).collect()
            }
        }
    }

    /// The forwards that differ, in order.
    pub(crate) fn forwards<'a>(
        &self,
        new: &'a BTreeMap<PortKey, Element>,
        old: &'a BTreeMap<PortKey, Element>,
    ) -> Vec<Pair<PortKey, &'a Element>> {
        match self {
            Self::Everywhere => {
                let differing = differing(new, old).into_iter();
                differing.map(|(key, was, is)| (*key, was, is)).collect()
            }
            Self::Within(touched) => {
                let pair = |it: &PortKey| (*it, old.get(it), new.get(it));
                touched.ports.iter().map(pair).filter(|(_, was, is)| was != is).collect()
            }
        }
    }
}

/// The keys whose values differ, with the old and the new value, in order.
fn differing<'a, K: Ord, V: PartialEq>(
    new: &'a BTreeMap<K, V>,
    old: &'a BTreeMap<K, V>,
) -> Vec<Pair<&'a K, &'a V>> {
    let mut differing = Vec::new();
    let (mut new, mut old) = (new.iter().peekable(), old.iter().peekable());
    loop {
        let order = match (new.peek(), old.peek()) {
            (None, None) => return differing,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        match order {
            Ordering::Less => differing.extend(new.next().map(|(key, is)| (key, None, Some(is)))),
            Ordering::Greater => {
                differing.extend(old.next().map(|(key, was)| (key, Some(was), None)));
            }
            Ordering::Equal => {
                if let (Some((key, is)), Some((_, was))) = (new.next(), old.next())
                    && is != was
                {
                    differing.push((key, Some(was), Some(is)));
                }
            }
        }
    }
}
