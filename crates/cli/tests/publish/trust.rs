//! Adoption, and certificates that change while flows go on.

use testkit::Protocol::Tcp;
use testkit::wait;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at};

#[test]
fn wb12_a_gateway_that_lost_everything_is_adopted_anew_with_a_new_secret() -> anyhow::Result<()> {
    let Some(place) = Place::build("replaced", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    place.reached(at(1, 443), Tcp)?;
    // The machine is replaced: nothing is left of its state, and its old secret is used up.
    place.kill_gateway(1)?;
    std::fs::remove_dir_all(place.path("g1-state"))?;
    place.create_gateway(1, "", "")?;
    place.start_gateway(1)?;
    place.reached(at(1, 443), Tcp)?;
    Ok(())
}

#[test]
fn wb12_a_one_time_secret_opens_nothing_once_it_has_expired() -> anyhow::Result<()> {
    let Some(place) = Place::empty("expired", ONE)? else { return Ok(()) };
    place.create_gateway(1, "", "")?;
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
