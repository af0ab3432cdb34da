//! Who reaches what: one real connection for every cell, with the source that the server saw.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use testkit::border::{HOST, HOST6};
use testkit::probe::{Outcome, Probe, SILENCE};
use testkit::{Machine, Protocol};

use crate::border::Border;
use crate::screen::say;

/// One host port and who should reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) from_outside: Expected,
    pub(crate) from_vpn: Expected,
}

/// Who should answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Expected {
    /// These nodes and no other, each at least once, and they see the client's own address.
    Nodes(&'static [&'static str]),
    /// Nobody.
    Nobody,
}

/// Draws the picture, and returns whether every cell was as expected.
pub(crate) fn draw(border: &Border, rows: &[Row]) -> Result<bool> {
    say(&format!(
        "   {:<22}{:<34}{:<34}",
        "host port", "from outside (eth0, v4+v6)", "from the VPN (wg0, v4+v6)"
    ));
    let mut held = true;
    for row in rows {
        let (outside, outside_held) = cell(&border.machines.outside, row, row.from_outside)?;
        let (vpn, vpn_held) = cell(&border.machines.vpn, row, row.from_vpn)?;
        held &= outside_held && vpn_held;
        let port = format!("{}/{} {}", row.port, row.protocol, row.what);
        say(&format!("   {port:<22}{outside:<34}{vpn:<34}"));
    }
    Ok(held)
}

/// Whether every row is as expected, without drawing.
pub(crate) fn holds(border: &Border, rows: &[Row]) -> Result<bool> {
    for row in rows {
        if !cell(&border.machines.outside, row, row.from_outside)?.1
            || !cell(&border.machines.vpn, row, row.from_vpn)?.1
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn cell(client: &Machine, row: &Row, expected: Expected) -> Result<(String, bool)> {
    let mut servers = BTreeSet::new();
    let mut sources = BTreeSet::new();
    let mut refusals = 0;
    for address in [HOST, HOST6] {
        let to = SocketAddr::new(address.parse::<IpAddr>()?, row.port);
        for _ in 0..4 {
            match client.probe(Probe::new(to, row.protocol).within(SILENCE))? {
                Outcome::Reached(answer) => {
                    servers.insert(answer.server);
                    sources.insert((answer.source_seen.ip(), answer.local.ip()));
                }
                Outcome::Refused(_) | Outcome::Unreachable(_) | Outcome::Dropped => refusals += 1,
            }
        }
    }
    let own_address = sources.iter().all(|(seen, own)| seen == own);
    let held = match expected {
        Expected::Nodes(nodes) => {
            servers.iter().map(String::as_str).eq(nodes.iter().copied())
                && refusals == 0
                && own_address
        }
        Expected::Nobody => servers.is_empty(),
    };
    let mut text = match servers.is_empty() {
        true => "nobody".to_owned(),
        false => {
            let names = servers.into_iter().collect::<Vec<_>>().join(", ");
            let seen = sources.iter().map(|(seen, _)| seen).find(|it| it.is_ipv4());
            format!("{names} (saw {})", seen.map_or_else(|| "-".to_owned(), ToString::to_string))
        }
    };
    if refusals > 0 && !text.starts_with("nobody") {
        text.push_str(&format!(", {refusals} failed"));
    }
    text.insert_str(0, if held { "ok " } else { "!! " });
    Ok((text, held))
}
