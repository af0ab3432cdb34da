//! A new gateway program in the place of the old one, without a refused connection.

use std::time::Duration;

use testkit::Protocol::Tcp;
use testkit::probe::Probe;

use crate::objects::Service;
use crate::place::{ONE, PATIENCE, Place, at, finish, none_failed_or_slow};

#[test]
fn a_gateway_is_upgraded_without_a_refused_connection() -> anyhow::Result<()> {
    let Some(place) = Place::build("upgrade", ONE)? else { return Ok(()) };
    place.write("blog", &Service::default().yaml())?;
    let prober = place.prober(at(1, 443))?;
    let (flow, outcome) = place.visitor().flow(Probe::new(at(1, 443), Tcp))?;
    let flow = flow.unwrap_or_else(|| panic!("{outcome}"));
    // The new program takes the sockets over from the old one, which finishes its flows.
    let old = place.replace_gateway(1)?;
    assert_eq!(flow.ask(PATIENCE)?.server(), Some("b1"), "an open flow was cut");
    drop(flow);
    let status = old.wait(PATIENCE)?;
    assert!(status.success(), "{status}: {}", old.log());
    place.reached(at(1, 443), Tcp)?;
    none_failed_or_slow(&finish(prober)?, Duration::from_secs(1));
    Ok(())
}
