//! The internet and a home: what gets out, what does not get in, and what vanishes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use testkit::internet::{Direction, Internet, private, private6, public, public6};
use testkit::probe::{Probe, SILENCE};
use testkit::{Lab, Protocol, require};

#[test]
fn a_home_reaches_the_internet_and_nobody_reaches_the_home() -> anyhow::Result<()> {
    let Some(lab) = require(Lab::new("internet")) else { return Ok(()) };
    let internet = Internet::build(lab)?;
    let gateway = internet.public("g1", 1)?;
    let home = internet.private("a1", 21)?;
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7000));
    let _out = gateway.serve("gateway", everywhere, Protocol::Tcp)?;
    let _in = home.serve("home", everywhere, Protocol::Tcp)?;

    for (to, router) in [
        (IpAddr::from(public(1)), IpAddr::from(public(254))),
        (public6(1).into(), public6(254).into()),
    ] {
        let outcome = home.probe(Probe::new(SocketAddr::new(to, 7000), Protocol::Tcp))?;
        let answer = outcome.answer().unwrap_or_else(|| panic!("{to}: {outcome}"));
        assert_eq!(answer.source_seen.ip(), router, "the router's address stands for all at home");
    }
    internet.visitor.route("default", &public(254).to_string())?;
    internet.visitor.route("default", &public6(254).to_string())?;
    for to in [IpAddr::from(private(21)), private6(21).into()] {
        let probe = Probe::new(SocketAddr::new(to, 7000), Protocol::Tcp).within(SILENCE);
        let outcome = internet.visitor.probe(probe)?;
        assert_eq!(outcome.answer(), None, "{to}: {outcome}");
    }
    Ok(())
}

#[test]
fn silence_is_not_told_to_anybody_and_ends() -> anyhow::Result<()> {
    let Some(lab) = require(Lab::new("silence")) else { return Ok(()) };
    let internet = Internet::build(lab)?;
    let gateway = internet.public("g1", 1)?;
    let home = internet.private("a1", 21)?;
    let other = internet.private("a2", 22)?;
    let to = SocketAddr::new(public(1).into(), 7000);
    let _server = gateway.serve("gateway", to, Protocol::Tcp)?;
    for direction in [Direction::Out, Direction::Back, Direction::Both] {
        let (flow, outcome) = home.flow(Probe::new(to, Protocol::Tcp))?;
        let flow = flow.unwrap_or_else(|| panic!("before {direction:?}: {outcome}"));
        let silence = internet.silence(21, 1, direction)?;
        let outcome = flow.ask(SILENCE)?;
        assert_eq!(outcome, testkit::probe::Outcome::Dropped, "{direction:?}");
        let outcome = other.probe(Probe::new(to, Protocol::Tcp))?;
        assert_eq!(outcome.server(), Some("gateway"), "{direction:?} is about one machine alone");
        drop(silence);
        let outcome = flow.ask(Duration::from_secs(5))?;
        assert_eq!(outcome.server(), Some("gateway"), "after {direction:?}: {outcome}");
    }
    Ok(())
}
