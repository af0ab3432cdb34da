//! What happens to gateways and agents, and what visitors notice of it.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use testkit::Protocol::{self, Tcp, Udp};
use testkit::probe::{Attempt, Prober};
use testkit::wait;

use super::site::Site;
use crate::screen::{chapter, say};
use crate::summary::Summary;

/// No visitor waits longer, whatever happens to an agent.
const NEVER_SLOWER: Duration = Duration::from_secs(1);

/// Longer than a link that has died in silence goes unnoticed.
const SILENCE: Duration = Duration::from_secs(8);

/// Tells it.
pub(crate) fn tell(site: &Site, summary: &mut Summary) -> Result<()> {
    chapter("A home behind a router, published by two gateways on the internet");
    sketch();
    for gateway in [1, 2] {
        site.reached(gateway, 443, Tcp)?;
        site.reached(gateway, 53, Udp)?;
    }
    for agent in [1, 2] {
        site.connected(agent, 2)?;
    }
    let held = picture(site)?;
    summary.note("what is at home is public", held, String::new());

    chapter("An agent is killed");
    let (attempts, outcome) = during(site, &[1, 2], || {
        say("   $ kill -9 a1, and start it again, three times");
        let mut kills = Vec::new();
        for _ in 0..3 {
            site.kill_agent(1);
            kills.push(SystemTime::now());
            site.start_agent(1)?;
            site.connected(1, 2)?;
        }
        Ok(kills)
    })?;
    let held = outcome.failed == 0 && outcome.slowest < NEVER_SLOWER;
    summary.note("an agent died", held, told(&attempts, &outcome));

    chapter("Packets of an agent vanish, and nobody is told");
    let (attempts, outcome) = during(site, &[1, 2], || {
        let silence = site.silence_agent(2)?;
        let end = Instant::now() + SILENCE;
        wait::until("the silence is over", 2 * SILENCE, || (Instant::now() > end).then_some(()))?;
        drop(silence);
        site.connected(2, 2)?;
        Ok(Vec::new())
    })?;
    let held = outcome.failed == 0 && outcome.slowest < NEVER_SLOWER;
    summary.note("a link died in silence", held, told(&attempts, &outcome));

    chapter("A gateway is killed; visitors have the other one's address too");
    let (attempts, outcome) = during(site, &[2], || {
        say("   $ kill -9 g1");
        site.kill_gateway(1);
        site.connected(1, 1)?;
        site.connected(2, 1)?;
        Ok(Vec::new())
    })?;
    let held = outcome.failed == 0 && outcome.slowest < NEVER_SLOWER;
    summary.note("a gateway died, the other went on", held, told(&attempts, &outcome));
    site.start_gateway(1)?;
    let took = site.reached(1, 443, Tcp)?;
    let held = picture(site)?;
    summary.note("the gateway came back", held, format!("{} ms", took.as_millis()));
    Ok(())
}

fn sketch() {
    say("
   visitor 198.51.100.9 ---+                                          +--- a1   10.77.0.21
   g1      198.51.100.1 ---+--- 198.51.100.254 [ router ] 10.77.0.1 ---+--- a2   10.77.0.22
   g2      198.51.100.2 ---+                                          +--- blog 10.77.0.31

   The router lets nobody in. Agents on a1 and a2 dial both gateways; nothing dials home.");
}

/// Who answers at each gateway; whether everybody does.
fn picture(site: &Site) -> Result<bool> {
    let mut held = true;
    for (port, protocol) in [(443, Tcp), (53, Udp)] {
        for gateway in [1, 2] {
            let answer = site.visit(gateway, port, protocol)?;
            held &= answer.is_some();
            say(&line(gateway, port, protocol, answer.as_ref()));
        }
    }
    Ok(held)
}

fn line(
    gateway: u8,
    port: u16,
    protocol: Protocol,
    answer: Option<&testkit::probe::Answer>,
) -> String {
    let what = format!("{port}/{protocol}");
    match answer {
        Some(it) => format!(
            "   g{gateway} {what:<8} ok {} answers, through the agent at {}",
            it.server,
            it.source_seen.ip()
        ),
        None => format!("   g{gateway} {what:<8} !! nobody"),
    }
}

/// What visitors noticed.
struct Noticed {
    /// New connections that failed.
    failed: usize,
    /// Connections through a program at the moment it was killed, which are lost with it.
    cut: usize,
    slowest: Duration,
}

/// Connects to these gateways every 10 ms while `change` happens, which says when it killed what
/// visitors were connected through.
fn during(
    site: &Site,
    gateways: &[u8],
    change: impl FnOnce() -> Result<Vec<SystemTime>>,
) -> Result<(Vec<Attempt>, Noticed)> {
    let probers: Vec<Prober> = gateways.iter().map(|it| site.prober(*it)).collect::<Result<_>>()?;
    let kills = change()?;
    let mut attempts = Vec::new();
    for prober in probers {
        attempts.extend(prober.stop()?);
    }
    // An attempt takes a few milliseconds.
    let cut_short = |it: &&Attempt| {
        let before = |kill: &SystemTime| kill.duration_since(it.at).ok();
        kills.iter().filter_map(before).any(|it| it < Duration::from_millis(100))
    };
    let lost = attempts.iter().filter(|it| it.outcome.answer().is_none());
    let (cut, failed): (Vec<_>, Vec<_>) = lost.partition(cut_short);
    let took = attempts.iter().filter_map(|it| it.outcome.answer().map(|it| it.answered));
    let noticed =
        Noticed { failed: failed.len(), cut: cut.len(), slowest: took.max().unwrap_or_default() };
    if let Some(first) = failed.first() {
        say(&format!("   the first that failed: {}", first.outcome));
    }
    Ok((attempts, noticed))
}

fn told(attempts: &[Attempt], noticed: &Noticed) -> String {
    let cut = if noticed.cut == 0 { String::new() } else { format!(", {} cut", noticed.cut) };
    format!(
        "{} connections, {} failed{cut}, the slowest took {} ms",
        attempts.len(),
        noticed.failed,
        noticed.slowest.as_millis()
    )
}
