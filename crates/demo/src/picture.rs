//! Who reaches what: one real connection for every cell, with the source that the server saw.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use testkit::border::{HOST, HOST6};
use testkit::probe::{Outcome, Probe, SILENCE};
use testkit::{Machine, Protocol};

use crate::border::Border;
use crate::screen::say;

/// How often each address is asked for one cell. The host takes turns, so every node answers.
const ATTEMPTS: usize = 4;

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
    let mut lines = vec![[
        "host port".to_owned(),
        "from outside (eth0)".to_owned(),
        "from the VPN (wg0)".to_owned(),
    ]];
    let mut held = true;
    for row in rows {
        let (outside, outside_held) = cell(&border.edge.outside, row, row.from_outside)?;
        let (vpn, vpn_held) = cell(&border.edge.vpn, row, row.from_vpn)?;
        held &= outside_held && vpn_held;
        let protocol = row.protocol.to_string();
        lines.push([format!("{}/{protocol} {}", row.port, row.what), outside, vpn]);
    }
    let width = |column: usize| lines.iter().map(|it| it[column].len()).max().unwrap_or_default();
    let widths = [0, 1, 2].map(width);
    for line in &lines {
        let columns = line.iter().zip(widths).map(|(text, width)| format!("{text:<width$}   "));
        say(format!("   {}", columns.collect::<String>()).trim_end());
    }
    Ok(held)
}

/// Whether every row is as expected, without drawing.
pub(crate) fn holds(border: &Border, rows: &[Row]) -> Result<bool> {
    for row in rows {
        if !cell(&border.edge.outside, row, row.from_outside)?.1
            || !cell(&border.edge.vpn, row, row.from_vpn)?.1
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn cell(client: &Machine, row: &Row, expected: Expected) -> Result<(String, bool)> {
    let mut servers = BTreeSet::new();
    let mut sources = BTreeSet::new();
    let mut failed = 0;
    for address in [HOST, HOST6] {
        let to = SocketAddr::new(address.parse::<IpAddr>()?, row.port);
        for _ in 0..ATTEMPTS {
            match client.probe(Probe::new(to, row.protocol).within(SILENCE))? {
                Outcome::Reached(answer) => {
                    servers.insert(answer.server);
                    sources.insert((answer.source_seen.ip(), answer.local.ip()));
                }
                Outcome::Refused(_) | Outcome::Unreachable(_) | Outcome::Dropped => failed += 1,
            }
        }
    }
    let own_address = sources.iter().all(|(seen, own)| seen == own);
    let held = match expected {
        Expected::Nodes(nodes) => {
            let answered = servers.iter().map(String::as_str);
            answered.eq(nodes.iter().copied()) && failed == 0 && own_address
        }
        Expected::Nobody => servers.is_empty(),
    };
    let mark = if held { "ok" } else { "!!" };
    if servers.is_empty() {
        return Ok((format!("{mark} nobody"), held));
    }
    let names = servers.into_iter().collect::<Vec<_>>().join(", ");
    let seen = sources.iter().map(|(seen, _)| seen.to_string()).collect::<Vec<_>>().join(", ");
    let mut text = format!("{mark} {names} saw {seen}");
    if failed > 0 {
        text.push_str(&format!(", {failed} of {} failed", 2 * ATTEMPTS));
    }
    Ok((text, held))
}
