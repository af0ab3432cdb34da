//! Names to addresses.

use std::net::{IpAddr, SocketAddr};

use super::{DialError, Endpoint};

pub(super) async fn addresses(endpoints: &[Endpoint]) -> Result<Vec<SocketAddr>, DialError> {
    let (mut found, mut failed) = (Vec::new(), DialError::NoEndpoint);
    for endpoint in endpoints {
        if let Ok(address) = endpoint.host.parse::<IpAddr>() {
            found.push(SocketAddr::new(address, endpoint.port));
            continue;
        }
        match tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await {
            Ok(addresses) => found.extend(addresses),
            Err(source) => failed = DialError::Resolve { endpoint: endpoint.clone(), source },
        }
    }
    let found = taking_turns(found);
    if found.is_empty() { Err(failed) } else { Ok(found) }
}

/// Each address once, IPv6 and IPv4 in turn, IPv6 first.
fn taking_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four) = (Vec::new(), Vec::new());
    for address in addresses {
        let family = if address.is_ipv6() { &mut six } else { &mut four };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_no_address_comes_twice() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ').map(|it| it.parse().expect("an address")).collect()
        };
        let mixed = parse("192.0.2.1:1 192.0.2.2:1 [2001:db8::1]:1 192.0.2.1:1 192.0.2.3:1");
        let turns = parse("[2001:db8::1]:1 192.0.2.1:1 192.0.2.2:1 192.0.2.3:1");
        assert_eq!(taking_turns(mixed), turns);
    }
}
