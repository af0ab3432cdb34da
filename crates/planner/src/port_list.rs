//! Ports as people read them: neighbours joined, long lists cut.

use std::fmt;

use api::port::{Port, Protocol};

/// Ports of one or several protocols; prints as `443/tcp, 9000-9010/tcp, 53/udp`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct PortList(Vec<(Protocol, Port)>);

/// How many ports or ranges are printed before the rest is counted.
const PRINTED: usize = 8;

impl PortList {
    pub(crate) fn push(&mut self, protocol: Protocol, port: Port) {
        self.0.push((protocol, port));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ports it holds.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn runs(&self) -> Vec<(Protocol, Port, Port)> {
        let mut ports = self.0.clone();
        ports.sort_unstable();
        ports.dedup();
        let mut runs: Vec<(Protocol, Port, Port)> = Vec::new();
        for (protocol, port) in ports {
            match runs.last_mut() {
                Some((same, _, last)) if *same == protocol && last.checked_add(1) == Some(port) => {
                    *last = port;
                }
                _ => runs.push((protocol, port, port)),
            }
        }
        runs
    }
}

impl fmt::Display for PortList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.runs();
        for (index, (protocol, first, last)) in runs.iter().take(PRINTED).enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{first}")?;
            if first != last {
                write!(f, "-{last}")?;
            }
            write!(f, "/{protocol}")?;
        }
        match runs.len().saturating_sub(PRINTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_neighbours_and_counts_the_rest() {
        check(&[], "");
        check(&[443], "443/tcp");
        check(&[9001, 9000, 9002, 443, 443], "443/tcp, 9000-9002/tcp");
        check(&[65534, 65535], "65534-65535/tcp");
        let odd: Vec<u16> = (0..20).map(|it| 2 * it + 1).collect();
        check(&odd, "1/tcp, 3/tcp, 5/tcp, 7/tcp, 9/tcp, 11/tcp, 13/tcp, 15/tcp and 12 more");
    }

    #[track_caller]
    fn check(ports: &[u16], expected: &str) {
        let mut list = PortList::default();
        for port in ports {
            list.push(Protocol::Tcp, Port::new(*port).expect("not zero"));
        }
        assert_eq!(list.to_string(), expected);
    }
}
