//! Labs come quickly, do what a network does, and leave nothing behind.

use std::time::Instant;

use testkit::probe::Probe;
use testkit::{Lab, Protocol};

#[test]
fn a_router_a_switch_and_three_hosts_are_built_at_once() -> anyhow::Result<()> {
    for lab in [Lab::as_root("build"), Lab::in_user_namespace("build")] {
        let begin = Instant::now();
        let Some(lab) = testkit::require(lab) else { continue };
        let router = lab.machine("router")?;
        let client = lab.machine("client")?;
        lab.link(
            &client,
            "eth0",
            &["192.0.2.2/24", "fd01::2/64"],
            &router,
            "ext0",
            &["192.0.2.1/24", "fd01::1/64"],
        )?;
        client.route("default", "192.0.2.1")?;
        client.route("default", "fd01::1")?;
        let nodes = lab.network("nodes")?;
        nodes.plug(&router, "int0", &["10.1.0.1/24", "fd02::1/64"])?;
        router.forwarding(true)?;
        let mut servers = Vec::new();
        for number in 1..=2 {
            let node = lab.machine(&format!("n{number}"))?;
            nodes.plug(
                &node,
                "eth0",
                &[&format!("10.1.0.1{number}/24"), &format!("fd02::1{number}/64")],
            )?;
            node.route("default", "10.1.0.1")?;
            node.route("default", "fd02::1")?;
            servers.push(node.serve(node.name(), "[::]:8080".parse()?, Protocol::Tcp)?);
        }
        let built = begin.elapsed();
        for (to, name) in [
            ("10.1.0.11:8080", "n1"),
            ("10.1.0.12:8080", "n2"),
            ("[fd02::11]:8080", "n1"),
            ("[fd02::12]:8080", "n2"),
        ] {
            let outcome = client.probe(Probe::new(to.parse()?, Protocol::Tcp))?;
            assert_eq!(outcome.server(), Some(name), "{to}: {outcome}");
        }
        let probed = begin.elapsed() - built;
        let begin = Instant::now();
        drop(servers);
        let user = lab.is_in_user_namespace();
        drop(lab);
        eprintln!(
            "user namespace {user}: built in {built:?}, probed in {probed:?}, removed in {:?}",
            begin.elapsed()
        );
    }
    Ok(())
}
