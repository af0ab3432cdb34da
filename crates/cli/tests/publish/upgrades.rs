//! A new gateway program in the place of the old one, without a refused connection.

use std::path::PathBuf;
use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::lab::Daemon;
use testkit::probe::Probe;
use testkit::requirement::Missing;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at, finish, none_failed_or_slow, program};

#[test]
fn a_gateway_is_upgraded_without_a_refused_connection() -> anyhow::Result<()> {
    let Some(place) = Place::build("upgrade", ONE)? else { return Ok(()) };
    check(&place, || place.replace_gateway(1))
}

/// What `portcullis gateway run` listens on, `portcullis-gateway` takes over: from the program that
/// has everything to the one that is a gateway alone.
#[test]
fn a_gateway_changes_to_the_small_program_without_a_refused_connection() -> anyhow::Result<()> {
    let Some(small) = testkit::require(small_program()) else { return Ok(()) };
    let Some(place) = Place::build("to-small", ONE)? else { return Ok(()) };
    let configuration = place.path("g1.toml").display().to_string();
    check(&place, || {
        let new = place.gateway(1).spawn(&small, &["--config", &configuration])?;
        place.succeed_gateway(1, new)
    })?;
    let runs =
        place.with_gateway(1, |it| Ok(std::fs::read_link(format!("/proc/{}/exe", it.pid()))?));
    assert_eq!(runs?, small.canonicalize()?);
    // From here on it is its own successor.
    check(&place, || {
        let new = place.gateway(1).spawn(&small, &["--config", &configuration])?;
        place.succeed_gateway(1, new)
    })
}

/// `replace` starts another program, and returns the old one: that finishes its flows and ends, and
/// no visitor notices.
fn check(place: &Place, replace: impl FnOnce() -> anyhow::Result<Daemon>) -> anyhow::Result<()> {
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(1, 443))?;
    let (flow, outcome) = place.visitor().flow(Probe::new(at(1, 443), Tcp))?;
    let flow = flow.unwrap_or_else(|| panic!("{outcome}"));
    let old = replace()?;
    assert_eq!(flow.ask(PATIENCE)?.server(), Some("b1"), "an open flow was cut");
    drop(flow);
    let status = old.wait(PATIENCE)?;
    assert!(status.success(), "{status}: {}", old.log());
    place.reached(at(1, 443), Tcp)?;
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    Ok(())
}

/// It belongs to another crate, whose programs are not built for these tests.
fn small_program() -> Result<PathBuf, Missing> {
    let small = program().with_file_name("portcullis-gateway");
    if small.is_file() {
        return Ok(small);
    }
    let what = format!("{} is not there", small.display());
    Err(Missing::new(what, "build it with `cargo build --package gateway-daemon`"))
}
