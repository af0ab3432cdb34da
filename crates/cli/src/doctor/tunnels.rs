//! What keeps the tunnels of this machine's agent from being as good as they could be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use agent::status::GatewayStatus;
use serde::Deserialize;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tunnel::windows::Windows;

use super::Check;
use crate::status::fetch;

/// The least receive buffer with which a QUIC connection can take a burst at a gigabit a second, in
/// bytes; what the kernel allows without a privilege.
const BUFFER: u64 = 2 << 20;

/// What sets all limits on a machine.
const SYSCTL: &str = "on the node, save what `portcullis install gateway --format sysctl` prints as \
                      /etc/sysctl.d/60-portcullis.conf, then sysctl --system";

/// How long an answer to one question over UDP may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is asked.
const TRIES: u32 = 4;

/// The part of an agent's document that is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    complete: bool,
    problems: Vec<String>,
    gateways: BTreeMap<String, GatewayStatus>,
}

/// Asks the agent at `address` and looks at each of its gateways.
pub(super) async fn look(address: SocketAddr) -> Vec<Check> {
    let area = "agent";
    let page = fetch::get(address, "/status").await;
    let document = match page.map(|it| serde_json::from_str::<Document>(&it)) {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => {
            let found = format!("what answers at {address} is no agent: {error}");
            return vec![Check::failure(area, "answer", found, "name its address with --agent")];
        }
        Err(error) => {
            let remedy = "start it with `portcullis agent`, or name its address with --agent";
            let found = format!("nothing answers at {address}: {error:#}");
            return vec![Check::failure(area, "answer", found, remedy)];
        }
    };
    let mut checks = vec![buffers(), windows(Windows::here())];
    if !document.complete {
        let remedy = "see `portcullis doctor --kube` for permissions";
        let found = "not every kind of object was listed yet, so nothing is published";
        checks.push(Check::failure(area, "objects", found, remedy));
    }
    for problem in document.problems {
        checks.push(Check::warning(area, "objects", problem, "see the message"));
    }
    if document.gateways.is_empty() {
        let remedy = "declare one with `portcullis gateway create`";
        checks.push(Check::warning(area, "gateways", "no EdgeGateway is declared", remedy));
    }
    for (name, gateway) in &document.gateways {
        checks.extend(of_gateway(name, gateway).await);
    }
    checks
}

async fn of_gateway(name: &str, gateway: &GatewayStatus) -> Vec<Check> {
    let area = format!("gateway {name}");
    let mut checks = vec![linked(&area, gateway)];
    let address = gateway.address.as_deref().and_then(|it| it.parse::<SocketAddr>().ok());
    let is_ours = gateway.carrier.as_deref().is_some_and(|it| it != "ssh");
    if let Some(address) = address.filter(|_| gateway.connected && is_ours) {
        checks.push(udp(&area, address, answers_over_udp(address).await));
    }
    for note in &gateway.notes {
        checks.push(Check::warning(&area, "machine", note, "see the message"));
    }
    checks.extend(ports(&area, gateway));
    checks
}

fn linked(area: &str, gateway: &GatewayStatus) -> Check {
    if gateway.connected {
        let carrier = gateway.carrier.as_deref().unwrap_or("?");
        let lost = match gateway.reconnects {
            0 => String::new(),
            count => format!(", {count} times lost or in vain since the agent started"),
        };
        return Check::ok(area, "link", format!("over {carrier}{lost}"));
    }
    let why = gateway.last_error.as_deref().unwrap_or("it is being dialled");
    let remedy = "let the cluster reach its tunnel port (7443, TCP and UDP), see that \
                  `portcullis-gateway` runs there, and that spec.endpoints of its EdgeGateway is right";
    Check::failure(area, "link", why, remedy)
}

fn udp(area: &str, address: SocketAddr, answers: bool) -> Check {
    if answers {
        return Check::ok(area, "UDP", format!("{address} answers over QUIC"));
    }
    let found = format!(
        "{address} does not answer over UDP: visitors' datagrams go over TLS, where a lost packet \
         holds up those behind it"
    );
    let remedy = "allow UDP to the tunnel port on the way and at the gateway, or set spec.carrier to \
                  tls to do without";
    Check::warning(area, "UDP", found, remedy)
}

fn ports(area: &str, gateway: &GatewayStatus) -> Vec<Check> {
    let (well, ill): (Vec<_>, Vec<_>) =
        gateway.ports.iter().partition(|it| it.state == "listening");
    let mut checks = vec![Check::ok(area, "ports", format!("{} are listened on", well.len()))];
    for port in ill {
        let found = format!("{}/{} is {}", port.address, port.protocol, port.state);
        let remedy = if port.state.starts_with("in use") {
            "stop the other program there, publish on another address, or choose another port"
        } else if port.state.starts_with("not granted") {
            "grant the port in the gateway's own configuration, or do not ask for it"
        } else {
            "see the gateway's log"
        };
        checks.push(Check::failure(area, "ports", found, remedy));
    }
    for port in well.into_iter().filter(|it| it.failed > 0) {
        let found = format!(
            "{}/{} turned {} of {} visitors away: no agent took them",
            port.address, port.protocol, port.failed, port.total
        );
        let remedy = "see that the backend's pods are ready, and the agents' metric \
                      portcullis_flows_refused_total";
        checks.push(Check::warning(area, "ports", found, remedy));
    }
    checks
}

/// Whether something that speaks QUIC answers there.
///
/// A greeting of a version that nobody has (RFC 9000, 15: `0x?a?a?a?a`) must be answered with those
/// that there are (section 6), before any handshake.
async fn answers_over_udp(address: SocketAddr) -> bool {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let Ok(socket) = UdpSocket::bind(any).await else { return false };
    if socket.connect(address).await.is_err() {
        return false;
    }
    let mut answer = [0; 1500];
    for _ in 0..TRIES {
        if socket.send(&greeting()).await.is_err() {
            continue;
        }
        let received = timeout(PATIENCE, socket.recv(&mut answer)).await;
        // The long form, version zero.
        if let Ok(Ok(7..)) = received
            && answer[0] & 0x80 != 0
            && answer[1..5] == [0; 4]
        {
            return true;
        }
    }
    false
}

/// As long as a first packet must be to be looked at (RFC 9000, 14.1).
fn greeting() -> Vec<u8> {
    let mut packet = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a];
    packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet.extend([8, 8, 7, 6, 5, 4, 3, 2, 1]);
    packet.resize(1200, 0);
    packet
}

/// The buffers that sockets may have here.
fn buffers() -> Check {
    const NAME: &str = "UDP buffers";
    let area = "this machine";
    let read = |key: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{key}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    match (read("rmem_max"), read("wmem_max")) {
        (Some(receive), Some(send)) if receive.min(send) >= BUFFER => {
            Check::ok(area, NAME, format!("sockets may have {receive} bytes in, {send} out"))
        }
        (Some(receive), Some(send)) => Check::warning(
            area,
            NAME,
            format!(
                "sockets may have only {receive} bytes in, {send} out: QUIC loses packets in bursts"
            ),
            SYSCTL,
        ),
        // Namespaces other than the first do not show them.
        (_, _) => Check::ok(area, NAME, "the kernel does not show them in this namespace"),
    }
}

/// How much of one connection may be under way here.
fn windows(found: Option<Windows>) -> Check {
    const NAME: &str = "TCP windows";
    let area = "this machine";
    let Some(windows) = found else {
        return Check::ok(area, NAME, "the kernel does not show them in this namespace");
    };
    match windows.remedy() {
        None => Check::ok(area, NAME, windows.to_string()),
        Some(remedy) => {
            let remedy = format!(
                "{remedy}: {SYSCTL}; agents in a network of their own get both from `portcullis \
                 install agent`, with Kubernetes 1.32 or newer"
            );
            Check::warning(area, NAME, windows.to_string(), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use agent::status::PortStatus;
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_port_that_somebody_else_has_is_named_with_what_to_do() {
        let port = |address: &str, state: &str, failed: u64| PortStatus {
            address: address.to_owned(),
            protocol: "tcp".to_owned(),
            owner: None,
            state: state.to_owned(),
            open: 0,
            total: 9,
            received: 0,
            sent: 0,
            failed,
        };
        let gateway = GatewayStatus {
            ports: vec![
                port("*:80", "listening", 0),
                port("*:443", "in use: nginx (pid 1234)", 0),
                port("*:8080", "listening", 3),
            ],
            ..GatewayStatus::default()
        };
        let text: Vec<_> =
            ports("gateway fra1", &gateway).iter().map(ToString::to_string).collect();
        expect![[r#"
            ok   gateway fra1: ports: 2 are listened on
            FAIL gateway fra1: ports: *:443/tcp is in use: nginx (pid 1234)
                 -> stop the other program there, publish on another address, or choose another port
            WARN gateway fra1: ports: *:8080/tcp turned 3 of 9 visitors away: no agent took them
                 -> see that the backend's pods are ready, and the agents' metric portcullis_flows_refused_total"#]]
        .assert_eq(&text.join("\n"));
    }

    #[test]
    fn small_windows_are_a_warning_that_says_what_they_cost() {
        let linux = Windows { receive: 6 << 20, send: 4 << 20 };
        let ours = Windows { receive: 32 << 20, send: 32 << 20 };
        let text: Vec<_> = [Some(linux), Some(ours), None].map(|it| windows(it).to_string()).into();
        expect![[r#"
            WARN this machine: TCP windows: one connection with 100 ms of round trip gets at most 503 Mbit/s in (net.ipv4.tcp_rmem, 6144 KiB) and 336 Mbit/s out (net.ipv4.tcp_wmem, 4096 KiB)
                 -> set net.ipv4.tcp_rmem to "4096 131072 33554432", net.ipv4.tcp_wmem to "4096 16384 33554432": on the node, save what `portcullis install gateway --format sysctl` prints as /etc/sysctl.d/60-portcullis.conf, then sysctl --system; agents in a network of their own get both from `portcullis install agent`, with Kubernetes 1.32 or newer
            ok   this machine: TCP windows: one connection with 100 ms of round trip gets at most 2684 Mbit/s in (net.ipv4.tcp_rmem, 32768 KiB) and 2684 Mbit/s out (net.ipv4.tcp_wmem, 32768 KiB)
            ok   this machine: TCP windows: the kernel does not show them in this namespace"#]].assert_eq(&text.join("\n"));
    }

    #[tokio::test]
    async fn silence_over_udp_is_noticed_and_an_answer_too() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        assert!(!answers_over_udp(silent.local_addr().expect("bound")).await);

        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = server.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            let (length, from) = server.recv_from(&mut buffer).await.expect("a greeting");
            assert!(length >= 1200, "shorter ones are not looked at");
            // Version negotiation: the long form, version 0, the connection ids, version 1.
            let answer = [0x80, 0, 0, 0, 0, 1, 9, 1, 9, 0, 0, 0, 1];
            server.send_to(&answer, from).await.expect("sent");
        });
        assert!(answers_over_udp(address).await);
    }
}
