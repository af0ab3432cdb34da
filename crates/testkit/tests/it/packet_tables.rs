//! One table, two worlds: a tracer and real packets.

use std::net::IpAddr;

use testkit::packet_table::{Packet, PacketTable, Places, Verdict};
use testkit::{Lab, Protocol};

const TABLE: &str = "
client                  10.5.0.1:80/tcp       -> web at 10.5.0.1:80 source kept
client from 10.5.0.200  10.5.0.1:80/tcp       -> web source 10.5.0.200
client                  [fd05::1]:53/udp      -> dns source kept
client                  10.5.0.1:90/sctp      -> sig source 10.5.0.2
client                  10.5.0.1:81/tcp       -> refused
client                  10.5.0.1:82/tcp       -> dropped
client                  10.5.0.1:83/tcp       -> dropped
client                  10.5.0.1:84/udp       -> unreachable
client                  [fd05::1]:84/udp      -> unreachable
client                  10.5.0.1:86/sctp      -> unreachable
client                  10.5.0.1:86/tcp       -> unreachable
client                  10.5.0.1:85/tcp x30   -> a:15 b:15
";

/// What the filter of the lab says, in the words of the notation.
const FILTER: &str = "
table inet filter {
  chain in {
    type filter hook input priority 0
    tcp dport { 82, 83 } drop
    udp dport 84 reject with icmpx host-unreachable
    meta l4proto { tcp, sctp } th dport 86 reject with icmpx host-unreachable
  }
}
table ip nat {
  chain pre {
    type nat hook prerouting priority -100
    tcp dport 85 redirect to numgen inc mod 2 map { 0 : 8501, 1 : 8502 }
  }
}
";

#[test]
fn a_table_holds_for_real_packets() -> anyhow::Result<()> {
    for lab in [Lab::as_root("table"), Lab::in_user_namespace("table")] {
        let Some(lab) = testkit::require(lab) else { continue };
        let (_servers, places) = build(&lab)?;
        TABLE.parse::<PacketTable>()?.check(&places)?;
    }
    Ok(())
}

#[test]
fn real_packets_contradict_a_wrong_table() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("wrong-table")) else { return Ok(()) };
    let (_servers, places) = build(&lab)?;
    let wrong = "
client 10.5.0.1:80/tcp -> other
client 10.5.0.1:80/tcp -> dropped
client 10.5.0.1:82/tcp -> refused
client 10.5.0.1:81/tcp -> dropped
client 10.5.0.1:80/tcp -> web source 10.5.0.9
client 10.5.0.1:80/tcp -> web at 10.5.0.1:8080
client 10.5.0.1:85/tcp x30 -> a:30
client 10.5.0.1:85/tcp x30 -> a:20 b:10
nobody 10.5.0.1:80/tcp -> web
client 10.5.0.1:80/tcp -> web
";
    let error = wrong.parse::<PacketTable>()?.check(&places).expect_err("nearly all is wrong");
    let web = "web at 10.5.0.1:80 source 10.5.0.2 (kept)";
    assert_eq!(
        error.to_string(),
        format!(
            "9 of 10 rows are wrong:\n\
             line 2: client 10.5.0.1:80/tcp -> other: found {web}\n\
             line 3: client 10.5.0.1:80/tcp -> dropped: found {web}\n\
             line 4: client 10.5.0.1:82/tcp -> refused: found dropped\n\
             line 5: client 10.5.0.1:81/tcp -> dropped: found refused\n\
             line 6: client 10.5.0.1:80/tcp -> web source 10.5.0.9: found {web}\n\
             line 7: client 10.5.0.1:80/tcp -> web at 10.5.0.1:8080: found {web}\n\
             line 8: client 10.5.0.1:85/tcp x30 -> a:30: \
             found b at 10.5.0.1:8502 source 10.5.0.2 (kept)\n\
             line 9: client 10.5.0.1:85/tcp x30 -> a:20 b:10: found a:15 b:15\n\
             line 10: nobody 10.5.0.1:80/tcp -> web: \
             `nobody` is not a place of this lab, which has client"
        )
    );
    Ok(())
}

#[test]
fn a_table_holds_for_a_tracer() -> anyhow::Result<()> {
    TABLE.parse::<PacketTable>()?.check(&trace)
}

/// The same filter, by hand.
fn trace(packet: &Packet<'_>) -> anyhow::Result<Verdict> {
    let own: IpAddr = if packet.to.is_ipv4() { "10.5.0.2" } else { "fd05::2" }.parse()?;
    let source = packet.source.unwrap_or(own);
    let delivered = |server: &str| Verdict::Delivered {
        server: server.to_owned(),
        reached_on: packet.to,
        source_seen: source,
        source_sent: source,
    };
    Ok(match (packet.to.port(), packet.protocol) {
        (80, Protocol::Tcp) => delivered("web"),
        (53, Protocol::Udp) => delivered("dns"),
        (90, Protocol::Sctp) => delivered("sig"),
        (82 | 83, Protocol::Tcp) => Verdict::Dropped,
        (84, Protocol::Udp) | (86, Protocol::Tcp | Protocol::Sctp) => Verdict::Unreachable,
        (85, Protocol::Tcp) => delivered(if packet.number.is_multiple_of(2) { "a" } else { "b" }),
        (_, _) => Verdict::Refused,
    })
}

fn build(lab: &Lab) -> anyhow::Result<(Vec<testkit::probe::EchoServer>, Places)> {
    let (server, client) = (lab.machine("server")?, lab.machine("client")?);
    let left = ["10.5.0.1/24", "fd05::1/64"];
    let right = ["10.5.0.2/24", "10.5.0.200/24", "fd05::2/64"];
    lab.link(&server, "eth0", &left, &client, "eth0", &right)?;
    server.nft(FILTER)?;
    let servers = [
        ("web", "[::]:80", Protocol::Tcp),
        ("dns", "[::]:53", Protocol::Udp),
        ("sig", "[::]:90", Protocol::Sctp),
        ("a", "[::]:8501", Protocol::Tcp),
        ("b", "[::]:8502", Protocol::Tcp),
    ];
    let servers = servers.map(|(name, at, protocol)| server.serve(name, at.parse()?, protocol));
    Ok((servers.into_iter().collect::<anyhow::Result<_>>()?, Places::new().with(&client)))
}
