//! A pod that sees its visitors' own addresses, with the agent in its node's network.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use agent::transparent::{self, Steering};
use anyhow::{Context as _, Result};
use testkit::lab::{Lab, Machine, ReversePath};
use testkit::require;
use tokio::io::AsyncReadExt as _;

/// Nobody in the lab has these addresses.
const VISITORS: [&str; 2] = ["198.51.100.7:40001", "[2001:db8:5::7]:40001"];
const POD: [&str; 2] = ["10.9.0.2", "fd09::2"];

#[test]
fn a_pod_sees_the_visitors_own_address_and_its_answers_come_back() -> Result<()> {
    let Some((lab, node, pod)) = place("transparent")? else { return Ok(()) };
    for (visitor, address) in VISITORS.into_iter().zip(POD) {
        let (visitor, address): (SocketAddr, IpAddr) = (visitor.parse()?, address.parse()?);
        let (tcp, udp) = serve(&pod, address)?;
        let inside = require(node.enter(|| {
            block_on(async {
                let steering = Steering::start().await?;
                let mut stream = transparent::tcp(visitor, tcp)?.connect(tcp).await?;
                let mut seen = String::new();
                stream.read_to_string(&mut seen).await?;
                assert_eq!(seen.parse::<SocketAddr>()?, visitor, "over TCP");

                let socket = transparent::udp(visitor, udp)?;
                socket.send(b"who am I?").await?;
                let mut seen = [0; 64];
                let length = socket.recv(&mut seen).await?;
                let seen = std::str::from_utf8(&seen[..length])?;
                assert_eq!(seen.parse::<SocketAddr>()?, visitor, "over UDP");
                steering.stop().await;
                anyhow::Ok(())
            })
        }));
        let Some(result) = inside else { return Ok(()) };
        result.with_context(|| format!("with visitor {visitor} (look around:\n{lab})"))?;
    }
    Ok(())
}

#[test]
fn two_visitors_behind_one_port_number_do_not_meet() -> Result<()> {
    let Some((_lab, node, pod)) = place("two visitors")? else { return Ok(()) };
    let (tcp, _) = serve(&pod, POD[0].parse()?)?;
    let inside = require(node.enter(|| {
        block_on(async {
            let steering = Steering::start().await?;
            // The same visitor twice at once, as through two gateways: the second keeps its
            // address and gets another port.
            let visitor: SocketAddr = VISITORS[0].parse()?;
            let mut first = transparent::tcp(visitor, tcp)?.connect(tcp).await?;
            let second = transparent::tcp(visitor, tcp)?.connect(tcp).await;
            assert!(second.is_err(), "one connection has these ends already");
            let other: SocketAddr = "198.51.100.8:40001".parse()?;
            let mut third = transparent::tcp(other, tcp)?.connect(tcp).await?;
            for (stream, expected) in [(&mut first, visitor), (&mut third, other)] {
                let mut seen = String::new();
                stream.read_to_string(&mut seen).await?;
                assert_eq!(seen.parse::<SocketAddr>()?, expected);
            }
            steering.stop().await;
            anyhow::Ok(())
        })
    }));
    let Some(result) = inside else { return Ok(()) };
    result
}

#[test]
fn nothing_is_left_behind_and_other_peoples_rules_stay() -> Result<()> {
    let Some((_lab, node, _pod)) = place("steering")? else { return Ok(()) };
    node.nft("table inet theirs {\n chain c {\n counter\n }\n}\n")?;
    node.run("ip", &["rule", "add", "fwmark", "0x1", "lookup", "100"])?;
    let state = || -> Result<String> {
        let rules = node.run("ip", &["rule"])? + &node.run("ip", &["-6", "rule"])?;
        Ok(node.run("nft", &["list", "ruleset"])? + &rules)
    };
    let before = state()?;
    let inside = require(node.enter(|| {
        block_on(async {
            // Twice: what an agent that was killed left behind is replaced.
            std::mem::forget(Steering::start().await?);
            let steering = Steering::start().await?;
            let rules = node.run("ip", &["rule"])?;
            assert_eq!(rules.matches("lookup 7443").count(), 1, "{rules}");
            steering.stop().await;
            anyhow::Ok(())
        })
    }));
    let Some(result) = inside else { return Ok(()) };
    result?;
    assert_eq!(state()?, before);
    Ok(())
}

/// A node and a pod on it. The node is as nodes are: it forwards and filters by reverse path.
fn place(name: &str) -> Result<Option<(Lab, Machine, Machine)>> {
    let Some(lab) = require(Lab::as_root(name)) else { return Ok(None) };
    let (node, pod) = (lab.machine("node")?, lab.machine("pod")?);
    lab.link(
        &node,
        "pod0",
        &["10.9.0.1/24", "fd09::1/64"],
        &pod,
        "eth0",
        &["10.9.0.2/24", "fd09::2/64"],
    )?;
    pod.route("default", "10.9.0.1")?;
    pod.route("default", "fd09::1")?;
    node.forwarding(true)?;
    node.reverse_path(ReversePath::Strict)?;
    Ok(Some((lab, node, pod)))
}

/// Servers in the pod that tell each visitor its address, and where they are.
fn serve(pod: &Machine, address: IpAddr) -> Result<(SocketAddr, SocketAddr)> {
    let (sender, receiver) = mpsc::channel();
    pod.enter(move || {
        let tcp = TcpListener::bind((address, 0))?;
        let udp = UdpSocket::bind((address, 0))?;
        sender.send((tcp.local_addr()?, udp.local_addr()?)).ok();
        // They end with the process; the lab's end takes their network away before.
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = tcp.accept() {
                let _gone = stream.write_all(peer.to_string().as_bytes());
                let _gone = stream.shutdown(std::net::Shutdown::Write);
                // Until the visitor leaves, so that both ends of the connection stay taken.
                std::thread::spawn(move || stream.read(&mut [0; 1]));
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _gone = udp.send_to(peer.to_string().as_bytes(), peer);
            }
        });
        std::io::Result::Ok(())
    })
    .map_err(|missing| anyhow::anyhow!("{missing}"))??;
    receiver.recv().context("the servers are bound")
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), work).await.context("within ten seconds")?
    })
}
