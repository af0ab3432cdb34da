//! Adoption, and certificates that change while flows go on.

use std::time::Duration;

use anyhow::Context as _;
use testkit::Protocol::Tcp;
use testkit::probe::Probe;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, Size, at, finish, none_failed_or_slow};

#[test]
fn wb12_a_gateway_that_lost_everything_is_adopted_anew_with_a_new_secret() -> anyhow::Result<()> {
    let Some(place) = Place::build("replaced", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    // The machine is replaced: nothing is left of its state, and its old secret is used up.
    place.kill_gateway(1)?;
    std::fs::remove_dir_all(place.path("g1-state"))?;
    place.create_gateway(1, "", &[])?;
    place.start_gateway(1)?;
    place.reached(at(1, 443), Tcp)?;
    Ok(())
}

#[test]
fn wb12_a_gateway_that_is_to_be_reached_over_quic_is_adopted() -> anyhow::Result<()> {
    let Some(place) = Place::empty("quic-adopt", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    let declared = std::fs::read_to_string(place.path("manifests/g1.yaml"))?;
    assert!(declared.contains("carrier: auto"), "{declared}");
    place.write("g1", &declared.replace("carrier: auto", "carrier: quic"))?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    Ok(())
}

#[test]
fn wb12_a_one_time_secret_opens_nothing_once_it_has_expired() -> anyhow::Result<()> {
    let Some(place) = Place::empty("expired", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &[])?;
    let file = place.path("g1.toml");
    let configuration = std::fs::read_to_string(&file)?;
    let expired: Vec<_> = configuration
        .lines()
        .map(|it| if it.starts_with("expires") { "expires = \"2026-01-01T00:00:00Z\"" } else { it })
        .collect();
    assert!(expired.contains(&"expires = \"2026-01-01T00:00:00Z\""), "{configuration}");
    std::fs::write(&file, expired.join("\n"))?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    wait::until("somebody says that it is too late", PATIENCE, || {
        place.logs().contains("expired").then_some(())
    })?;
    assert_eq!(place.connected(1)?, 0);
    Ok(())
}

#[test]
fn wb12_a_spot_machine_that_is_replaced_is_adopted_without_a_hand() -> anyhow::Result<()> {
    let Some(place) = Place::empty("spot", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", &["--redemptions", "3", "--valid-for", "365d"])?;
    place.start_gateway(1)?;
    place.start_agent(1)?;
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    for _ in 0..2 {
        // The provider takes the machine; the next one begins with the same user data.
        place.kill_gateway(1)?;
        std::fs::remove_dir_all(place.path("g1-state"))?;
        place.start_gateway(1)?;
        place.reached(at(1, 443), Tcp)?;
    }
    // Three machines were adopted, and no fourth.
    place.kill_gateway(1)?;
    std::fs::remove_dir_all(place.path("g1-state"))?;
    place.start_gateway(1)?;
    let begin = std::time::Instant::now();
    wait::until_ok("some time is over", PATIENCE, || {
        assert_eq!(place.visit(at(1, 443), Tcp)?.answer(), None, "a fourth machine was adopted");
        Ok((begin.elapsed().as_secs() > 8).then_some(()))
    })
}

#[test]
fn wb12_two_agents_spend_one_use_of_the_secret_on_one_machine() -> anyhow::Result<()> {
    let size = Size { gateways: 1, agents: 2 };
    let Some(place) = Place::empty("two-adopt", size)? else { return Ok(()) };
    place.create_gateway(1, "", &["--redemptions", "2"])?;
    place.start_agent(1)?;
    place.start_agent(2)?;
    // Both meet each machine at about the same moment, and two machines are all there are uses for.
    for _ in 0..2 {
        place.start_gateway(1)?;
        place.wait_connected(1, 1)?;
        place.wait_connected(2, 1)?;
        place.kill_gateway(1)?;
        std::fs::remove_dir_all(place.path("g1-state"))?;
    }
    place.start_gateway(1)?;
    wait::until_ok("both agents know that no use is left", PATIENCE, || {
        let used_up = |agent: u8| {
            let status = place.agent_status(agent)?.to_string();
            anyhow::Ok(status.contains("as often as it may be"))
        };
        Ok((used_up(1)? && used_up(2)?).then_some(()))
    })
}

#[test]
fn wb09_the_authority_is_replaced_without_a_lost_connection() -> anyhow::Result<()> {
    let Some(place) = Place::build("rotation", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(1, 443))?;
    let (flow, outcome) = place.visitor().flow(Probe::new(at(1, 443), Tcp))?;
    let flow = flow.unwrap_or_else(|| panic!("{outcome}"));
    let before = place.gateway_serial(1)?;
    // How long visitors wait while everything starts is another matter.
    let mut attempts = prober.read()?;
    place.rotate()?;
    // The agent looks every five seconds; the gateway asks as soon as it hears of it.
    wait::until_ok("the gateway has a certificate of the new authority", PATIENCE / 2, || {
        Ok((place.gateway_serial(1)? != before).then_some(()))
    })
    .with_context(|| place.logs())?;
    assert_eq!(flow.ask(PATIENCE)?.server(), Some("b1"), "an open flow was cut");
    let since = finish(prober)?;
    none_failed_or_slow(&since, Duration::from_secs(1));
    attempts.extend(since);
    none_failed_or_slow(&attempts, PATIENCE);
    Ok(())
}
