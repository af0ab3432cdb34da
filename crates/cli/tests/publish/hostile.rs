//! Visitors, strangers and impostors who mean no good.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, Size, at, finish, none_failed_or_slow};
use crate::sockets::connect;

/// The port on which gateways wait for agents.
const TUNNEL: u16 = 7443;

#[test]
fn rubbish_on_the_tunnel_port_disturbs_nobody() -> anyhow::Result<()> {
    let Some(place) = Place::build("rubbish", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(1, 443))?;
    let greeting = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 505]].concat();
    let endless_record = [&[22, 3, 3, 0xff, 0xff][..], &[0; 1 << 18]].concat();
    for rubbish in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0", &[0xff; 5000], &greeting, &endless_record]
    {
        for _ in 0..20 {
            let mut stream = connect(place.visitor(), at(1, TUNNEL))?;
            let _hung_up = stream.write_all(rubbish);
            let _hung_up = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer);
            assert!(answer.len() < 1024, "{} bytes for rubbish", answer.len());
        }
    }
    let socket = place.visitor().enter(|| UdpSocket::bind("0.0.0.0:0"))??;
    for length in [1_usize, 20, 1200, 1400] {
        for first in [0x00_u8, 0x40, 0xc0, 0xff] {
            let mut datagram = vec![0xa5; length];
            datagram[0] = first;
            for _ in 0..50 {
                // A full queue is no matter.
                let _full = socket.send_to(&datagram, at(1, TUNNEL));
            }
        }
    }
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    place.with_gateway(1, testkit::lab::Daemon::check_alive)
}

#[test]
fn connections_that_say_nothing_end_and_keep_no_agent_out() -> anyhow::Result<()> {
    let Some(place) = Place::build("half-open", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let silent: Vec<_> = (0..2000)
        .map(|_| connect(place.visitor(), at(1, TUNNEL)))
        .collect::<anyhow::Result<_>>()?;
    place.kill_agent(1)?;
    place.start_agent(1)?;
    place.reached(at(1, 443), Tcp)?;
    let mut left = silent;
    wait::until("silent connections are ended", Duration::from_secs(40), || {
        left.retain_mut(|it| {
            let _nonblocking = it.set_nonblocking(true);
            matches!(it.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        left.is_empty().then_some(())
    })
}

#[test]
fn wb09_an_agent_of_another_authority_gets_nothing() -> anyhow::Result<()> {
    let size = Size { gateways: 1, agents: 2 };
    let Some(place) = Place::empty("impostor", size)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    place.wait_connected(1, 1)?;
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(1, 443))?;

    // The same cluster name, an authority of its own.
    let other = place.path("other-authority");
    std::fs::create_dir(&other)?;
    let manifests = place.path("other-manifests");
    std::fs::create_dir(&manifests)?;
    let copy = |name: &str| std::fs::copy(place.path("manifests").join(name), manifests.join(name));
    copy("g1.yaml")?;
    let text = |path: &std::path::Path| path.display().to_string();
    let theirs = Service { endpoints: &["10.77.0.32"], ..Service::default() };
    std::fs::write(manifests.join("blog.yaml"), theirs.yaml())?;
    let impostor = place.agent(2).spawn(
        crate::place::program(),
        &[
            "agent",
            "--manifests",
            &text(&manifests),
            "--cluster",
            testkit::tunnels::CLUSTER,
            "--name",
            "a1",
            "--ca-dir",
            &text(&other),
        ],
    )?;
    wait::until("the impostor was refused", PATIENCE, || {
        let log = impostor.log().to_lowercase();
        ["certificate", "unknown", "refused", "not adopted"]
            .iter()
            .any(|it| log.contains(it))
            .then_some(())
    })?;
    let attempts = finish(prober)?;
    assert!(attempts.iter().all(|it| it.outcome.server() == Some("b1")), "the impostor answered");
    none_failed_or_slow(&attempts, Duration::from_secs(1));
    Ok(())
}
