//! Links, programs and machines that die, with and without a word.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::Protocol::Tcp;
use testkit::internet::{Direction, public};
use testkit::wait;

use crate::objects::Service;
use crate::place::{AGENT, ONE, PATIENCE, Place, Size, at, finish, none_failed_or_slow};

const DIRECTIONS: [Direction; 3] = [Direction::Out, Direction::Back, Direction::Both];

/// Pings when nothing was heard for a second, death after four and a half.
const NOTICED: Duration = Duration::from_secs(6);

/// The longest pause between two attempts to reconnect, and what the attempt itself takes.
const RECONNECTED: Duration = Duration::from_secs(14);

#[test]
fn wb04_a_link_that_dies_silently_is_noticed_within_six_seconds() -> anyhow::Result<()> {
    for direction in DIRECTIONS {
        let Some(place) = Place::build("silent", ONE)? else { return Ok(()) };
        place.write("blog", &Service::default().yaml())?;
        place.reached(at(1, 443), Tcp)?;

        let begin = Instant::now();
        let silence = place.internet.silence(AGENT, 1, direction)?;
        wait::until("both sides know", 2 * NOTICED, || {
            let agent_knows = place.connected(1).ok()? == 0;
            let gateway_knows = place.sessions(1).ok()? == 0;
            (agent_knows && gateway_knows).then_some(())
        })?;
        let noticed = begin.elapsed();
        assert!(noticed < NOTICED, "{direction:?}: noticed after {noticed:?}\n{}", place.logs());
        // From now on visitors are not kept waiting.
        let outcome = place.visit(at(1, 443), Tcp)?;
        assert!(matches!(outcome, testkit::probe::Outcome::Refused(_)), "{direction:?}: {outcome}");

        drop(silence);
        let begin = Instant::now();
        place.reached(at(1, 443), Tcp)?;
        let back = begin.elapsed();
        assert!(back < RECONNECTED, "{direction:?}: back after {back:?}\n{}", place.logs());
    }
    Ok(())
}

#[test]
fn wb04_a_minute_of_silence_ends_by_itself() -> anyhow::Result<()> {
    let Some(place) = Place::build("minute", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    let silence = place.internet.silence(AGENT, 1, Direction::Both)?;
    let end = Instant::now() + Duration::from_secs(60);
    wait::until("a minute is over", Duration::from_secs(70), || {
        (Instant::now() > end).then_some(())
    })?;
    drop(silence);
    let begin = Instant::now();
    place.reached(at(1, 443), Tcp)?;
    let back = begin.elapsed();
    assert!(back < RECONNECTED, "back after {back:?}\n{}", place.logs());
    Ok(())
}

#[test]
fn wb06_with_two_agents_the_silent_death_of_one_costs_no_new_connection() -> anyhow::Result<()> {
    for direction in DIRECTIONS {
        let size = Size { gateways: 1, agents: 2 };
        let Some(place) = Place::build("two-links", size)? else { return Ok(()) };
        place.write("blog", &Service::default().yaml())?;
        let prober = place.prober(at(1, 443))?;
        let silence = place.internet.silence(AGENT, 1, direction)?;
        wait::until("the gateway has given the link up", 2 * NOTICED, || {
            (place.sessions(1).ok()? == 1).then_some(())
        })?;
        drop(silence);
        place.wait_connected(1, 1)?;
        let attempts = finish(prober)?;
        none_failed_or_slow(&attempts, Duration::from_secs(1));
    }
    Ok(())
}

#[test]
fn wb04_a_gateway_that_reboots_is_found_again() -> anyhow::Result<()> {
    let Some(place) = Place::build("reboot", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    place.kill_gateway(1)?;
    // Nothing is told to the agent when power is cut: its packets vanish until the machine is back.
    let silence = place.internet.silence(AGENT, 1, Direction::Both)?;
    wait::until("the agent notices", 2 * NOTICED, || {
        (place.connected(1).ok()? == 0).then_some(())
    })?;
    place.start_gateway(1)?;
    drop(silence);
    let begin = Instant::now();
    place.reached(at(1, 443), Tcp)?;
    let back = begin.elapsed();
    assert!(back < RECONNECTED, "back after {back:?}\n{}", place.logs());
    Ok(())
}

#[test]
fn wb04_a_gateway_whose_address_changes_is_found_by_its_name() -> anyhow::Result<()> {
    let Some(place) = Place::empty("renamed", ONE)? else { return Ok(()) };
    let hosts = |number: u8| {
        std::fs::write(place.path("hosts"), format!("{} g1.example.com\n", public(number)))
    };
    hosts(1)?;
    let file = place.path("hosts").display().to_string();
    // The machine's own mount namespace: nobody else sees it.
    place.agent(1).run("mount", &["--bind", &file, "/etc/hosts"])?;
    place.create_gateway_at(1, "g1.example.com", "", &[])?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;

    let gateway = place.gateway(1);
    gateway.remove_address("wan0", &format!("{}/24", public(1)))?;
    gateway.add_address("wan0", &format!("{}/24", public(50)))?;
    hosts(50)?;
    let begin = Instant::now();
    place.reached(at(50, 443), Tcp)?;
    let back = begin.elapsed();
    assert!(back < NOTICED + RECONNECTED, "back after {back:?}\n{}", place.logs());
    Ok(())
}

#[test]
fn wb04_an_agent_that_was_killed_takes_its_listeners_over_at_once() -> anyhow::Result<()> {
    let Some(place) = Place::build("killed-agent", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    for round in 0..3 {
        place.kill_agent(1)?;
        let begin = Instant::now();
        place.start_agent(1)?;
        place.reached(at(1, 443), Tcp)?;
        let back = begin.elapsed();
        assert!(back < Duration::from_secs(2), "round {round}: {back:?}\n{}", place.logs());
    }
    Ok(())
}

#[test]
fn wb04_a_frozen_agent_gives_way_to_its_successor_at_once() -> anyhow::Result<()> {
    let Some(place) = Place::build("frozen-agent", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    // Its connections stay open; only the epoch of the next says that it is over.
    place.with_agent(1, |it| it.signal(Signal::SIGSTOP))?;
    let begin = Instant::now();
    let successor = place.agent_process(1, &["--listen", "127.0.0.1:0"])?;
    place.reached(at(1, 443), Tcp)?;
    let back = begin.elapsed();
    assert!(back < Duration::from_secs(2), "{back:?}\n{}\n{}", place.logs(), successor.log());

    // The old one wakes up and finds itself replaced; it must not fight.
    place.with_agent(1, |it| it.signal(Signal::SIGCONT))?;
    let prober = place.prober(at(1, 443))?;
    let end = Instant::now() + Duration::from_secs(5);
    wait::until("some time is over", PATIENCE, || (Instant::now() > end).then_some(()))?;
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    Ok(())
}
