//! What a gateway's machine may transfer in a month: counted, warned of, slowed down, stopped.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use testkit::Protocol::Tcp;
use testkit::probe::Outcome;
use testkit::tunnels::PAGES;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};
use crate::sockets::{connect, listen};

const MEGABYTE: u32 = 1_000_000;

#[test]
fn a_month_that_is_nearly_used_up_is_warned_of_and_then_only_warned_of() -> anyhow::Result<()> {
    let quota = "bytesPerMonth: 10000000, action: warn";
    let Some(place) = build("quota-warn", quota)? else { return Ok(()) };
    fetch(&place, 7 * MEGABYTE)?;
    wait::until("it is counted", PATIENCE, || (used(&place).ok()?.0 >= 7_000_000).then_some(()))?;
    let (now, limit) = used(&place)?;
    assert!((7_000_000..7_500_000).contains(&now), "{now} bytes for 7 MB");
    assert_eq!(limit, 10_000_000);
    let left = remaining(&place)?;
    assert!((2.5e6..=3e6).contains(&left), "{left} bytes left");
    assert!(!place.logs().contains("traffic of this month"), "{}", place.logs());

    // From 80 percent on.
    fetch(&place, MEGABYTE + MEGABYTE / 2)?;
    until_logged(&place, "standing=Near")?;
    fetch(&place, 3 * MEGABYTE)?;
    until_logged(&place, "standing=Over(Warn)")?;
    fetch(&place, MEGABYTE).context("it is said, and nothing else")?;
    assert!(remaining(&place)? < 1.0);
    Ok(())
}

#[test]
fn a_month_that_is_used_up_can_slow_down_what_follows() -> anyhow::Result<()> {
    let Some((place, mut open)) = used_up("quota-shape", true)? else { return Ok(()) };
    let together = together(&place, &mut open)?;
    assert!(SHARED.contains(&together), "4 MB took {together:?}");
    Ok(())
}

#[test]
fn without_the_kernels_help_new_connections_are_slowed_down() -> anyhow::Result<()> {
    let Some((place, _open)) = used_up("quota-program", false)? else { return Ok(()) };
    let together = together(&place, &mut connect(place.visitor(), at(1, 443))?)?;
    assert!(SHARED.contains(&together), "4 MB took {together:?}");
    Ok(())
}

#[test]
#[ignore = "does not hold yet: without CAP_NET_ADMIN open connections go on as fast as before"]
fn without_the_kernels_help_open_connections_are_slowed_down() -> anyhow::Result<()> {
    let Some((place, mut open)) = used_up("quota-open", false)? else { return Ok(()) };
    let together = together(&place, &mut open)?;
    assert!(SHARED.contains(&together), "4 MB took {together:?}");
    Ok(())
}

#[test]
fn a_month_that_is_used_up_can_stop_everything_until_there_is_more() -> anyhow::Result<()> {
    let quota = "bytesPerMonth: 4000000, action: stop";
    let Some(place) = build("quota-stop", quota)? else { return Ok(()) };
    let mut idle = connect(place.visitor(), at(1, 443))?;
    fetch_on(&mut idle, 1)?;
    fetch(&place, 4 * MEGABYTE)?;
    until_logged(&place, "standing=Over(Stop)")?;
    let end = idle.read(&mut [0]);
    assert!(matches!(end, Ok(0) | Err(_)), "an open connection goes on: {end:?}");
    let refused = |place: &Place| {
        let outcome = place.visit(at(1, 443), Tcp)?;
        anyhow::ensure!(matches!(outcome, Outcome::Refused(_)), "{outcome}\n{}", place.logs());
        Ok(())
    };
    refused(&place)?;

    // A restart gives nothing away, not even one after a power cut. What it stands at is on disk a
    // moment after it was said.
    let said = Instant::now();
    wait::until("a moment is over", PATIENCE, || {
        (said.elapsed() > Duration::from_secs(2)).then_some(())
    })?;
    place.kill_gateway(1)?;
    place.start_gateway(1)?;
    wait::until_ok("the agent is back", PATIENCE, || {
        Ok((place.sessions(1).unwrap_or(0) == 1).then_some(()))
    })?;
    refused(&place)?;
    assert!(used(&place)?.0 >= 4_000_000, "{:?}", used(&place)?);

    // More is allowed.
    let manifest = std::fs::read_to_string(place.tunnels.manifest("g1"))?;
    let more = manifest.replace("bytesPerMonth: 4000000", "bytesPerMonth: 400000000");
    assert_ne!(more, manifest);
    place.write("g1", &more)?;
    wait::until("visitors are served again", PATIENCE, || fetch(&place, 1).ok())
        .with_context(|| place.logs())?;
    Ok(())
}

#[test]
fn the_gateways_own_quota_counts_when_it_is_the_stricter_one() -> anyhow::Result<()> {
    let Some(place) = Place::empty("quota-own", ONE)? else { return Ok(()) };
    place.create_gateway(1, "quota: { bytesPerMonth: 1000000000, action: warn }", &[])?;
    let file = place.path("g1.toml");
    let own = "\n[clusters.quota]\nbytesPerMonth = 2000000\naction = \"stop\"\n";
    std::fs::write(&file, std::fs::read_to_string(&file)? + own)?;
    place.start_gateway(1)?;
    publish(&place)?;
    assert_eq!(used(&place)?.1, 2_000_000);
    // It may end within the last of it.
    let _cut = fetch(&place, 2 * MEGABYTE);
    until_logged(&place, "standing=Over(Stop)")?;
    let outcome = place.visit(at(1, 443), Tcp)?;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    Ok(())
}

/// How long 4 MB should take at a megabyte a second, with half a megabyte at once after a pause.
const SHARED: std::ops::Range<Duration> = Duration::from_secs(3)..Duration::from_secs(12);

/// A place whose month is used up, so that what follows is slow, and a connection from before.
fn used_up(name: &str, kernel: bool) -> anyhow::Result<Option<(Place, TcpStream)>> {
    let quota = "bytesPerMonth: 4000000, action: shape, shapeBitsPerSecond: 8000000";
    let Some(place) = Place::empty(name, ONE)? else { return Ok(None) };
    place.create_gateway(1, &format!("quota: {{ {quota} }}"), &[])?;
    if kernel {
        place.start_gateway(1)?;
    } else {
        place.start_gateway_as(1, 65534, "net_bind_service")?;
    }
    publish(&place)?;
    let mut open = connect(place.visitor(), at(1, 443))?;
    let before = fetch_on(&mut open, 4 * MEGABYTE)?;
    assert!(before < Duration::from_secs(3), "{before:?} before anything is used up");
    until_logged(&place, "standing=Over(Shape)")?;
    wait::until_ok("new connections are slow", PATIENCE, || {
        Ok((fetch(&place, 2 * MEGABYTE)? > Duration::from_secs(1)).then_some(()))
    })?;
    Ok(Some((place, open)))
}

/// How long 2 MB over this connection and 2 MB over a new one take at the same time.
fn together(place: &Place, stream: &mut TcpStream) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| fetch(place, 2 * MEGABYTE));
        let own = fetch_on(stream, 2 * MEGABYTE);
        own.and(other.join().expect("it does not panic"))
    })
    .with_context(|| place.logs())?;
    Ok(begin.elapsed())
}

/// A place with this quota in the object of its gateway, and a backend that sends as much as it is
/// asked for.
fn build(name: &str, quota: &str) -> anyhow::Result<Option<Place>> {
    let Some(place) = Place::empty(name, ONE)? else { return Ok(None) };
    place.create_gateway(1, &format!("quota: {{ {quota} }}"), &[])?;
    place.start_gateway(1)?;
    publish(&place)?;
    Ok(Some(place))
}

fn publish(place: &Place) -> anyhow::Result<()> {
    send_what_is_asked_for(listen(&place.backends[0], 9000)?);
    place.start_agent(1)?;
    let service = Service { ports: &[(443, "TCP", 9000)], ..Service::default() };
    place.write("blog", &service.yaml())?;
    wait::until("the backend answers", PATIENCE, || fetch(place, 1).ok())
        .with_context(|| place.logs())?;
    Ok(())
}

/// Reads four bytes, sends as many as they say, and so on.
fn send_what_is_asked_for(listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut wanted = [0; 4];
                while stream.read_exact(&mut wanted).is_ok() {
                    let bytes = vec![7; u32::from_be_bytes(wanted) as usize];
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Fetches this much over a connection, and says how long it took.
fn fetch_on(stream: &mut TcpStream, bytes: u32) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    stream.write_all(&bytes.to_be_bytes())?;
    stream.read_exact(&mut vec![0; bytes as usize])?;
    Ok(begin.elapsed())
}

/// The same over a new connection.
fn fetch(place: &Place, bytes: u32) -> anyhow::Result<Duration> {
    fetch_on(&mut connect(place.visitor(), at(1, 443))?, bytes)
}

/// Waits until the gateway's log says so.
fn until_logged(place: &Place, text: &str) -> anyhow::Result<()> {
    wait::until_ok(&format!("the gateway says {text}"), PATIENCE, || {
        let log = place.with_gateway(1, |it| Ok(it.log()))?;
        Ok(log.contains(text).then_some(()))
    })
    .with_context(|| place.logs())
}

/// Bytes used and allowed, as the gateway tells.
fn used(place: &Place) -> anyhow::Result<(u64, u64)> {
    let status = place.tunnels.gateway_status(place.gateway(1))?;
    let quota = &status["clusters"][0]["quota"];
    let number = |key: &str| quota[key].as_u64().with_context(|| format!("{key} of {quota}"));
    Ok((number("usedBytes")?, number("limitBytes")?))
}

fn remaining(place: &Place) -> anyhow::Result<f64> {
    let metrics = place.gateway(1).page(PAGES, "/metrics")?;
    let line = metrics.lines().find(|it| it.starts_with("portcullis_quota_remaining_bytes{"));
    let value = line.and_then(|it| it.rsplit(' ').next()).context("no such metric")?;
    Ok(value.parse()?)
}
