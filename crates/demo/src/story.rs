//! What happens in the demo, chapter by chapter, and the summary at its end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use testkit::Protocol;
use testkit::probe::Probe;

use crate::border::Border;
use crate::picture::{self, Expected, Row};
use crate::screen::{chapter, say};

const BOTH: Expected = Expected::Nodes(&["n1", "n2"]);
const SECOND: Expected = Expected::Nodes(&["n2"]);

/// One line of the summary.
struct Outcome {
    what: &'static str,
    held: bool,
    note: String,
}

/// Tells the whole story; true when everything held.
pub(crate) fn tell(border: &Border) -> Result<bool> {
    let mut summary = Vec::new();

    chapter("Four Services on two nodes, forwarded by one host");
    say(
        "   blog for everyone; dns over UDP; admin not from outside; shop only from 10.8.0.0/24 and fd08::/64",
    );
    let rows = rows(BOTH, 443);
    let took = settle(border, "the first picture", &rows)?;
    note(
        &mut summary,
        "everyone reaches what is meant for them",
        picture::draw(border, &rows)?,
        took,
    );

    chapter("Node n1 goes down");
    let gap = during(
        border,
        |border| {
            border.stop_node(1)?;
            let down = Border::original("n1.yaml")?.replace("\"True\"", "\"False\"");
            border.write("n1.yaml", &down)
        },
        &self::rows(SECOND, 443),
    )?;
    note(&mut summary, "a node went down", picture::draw(border, &self::rows(SECOND, 443))?, gap);

    chapter("Node n1 comes back");
    border.start_node(1)?;
    border.write("n1.yaml", Border::original("n1.yaml")?)?;
    let took = settle(border, "both nodes", &rows)?;
    note(&mut summary, "the node came back", picture::draw(border, &rows)?, took);

    chapter("Service blog moves to host port 8443");
    border
        .write("blog.yaml", &Border::original("blog.yaml")?.replace("443:30443", "8443:30443"))?;
    let mut moved = self::rows(BOTH, 8443);
    moved.push(Row {
        what: "",
        port: 443,
        protocol: Protocol::Tcp,
        from_outside: Expected::Nobody,
        from_vpn: Expected::Nobody,
    });
    let took = settle(border, "the new port", &moved)?;
    note(&mut summary, "a Service changed its port", picture::draw(border, &moved)?, took);
    border.write("blog.yaml", Border::original("blog.yaml")?)?;
    settle(border, "the old port", &rows)?;

    chapter("Somebody deletes our whole table by hand");
    border.machines.host.run("nft", &["delete", "table", "inet", "portcullis"])?;
    let took = settle(border, "healing", &rows)?;
    note(&mut summary, "deleted rules came back", picture::draw(border, &rows)?, took);

    chapter("The controller is killed; forwarding goes on");
    border.kill_controller()?;
    note(
        &mut summary,
        "forwarding outlives the controller",
        picture::draw(border, &rows)?,
        Duration::ZERO,
    );
    let gap = during(border, Border::start_controller, &rows)?;
    note(&mut summary, "a restart interrupts nothing", gap == Duration::ZERO, gap);

    chapter("Cleaning up");
    border.kill_controller()?;
    say(&indent(&border.portcullis(&["cleanup"])?));
    let left = border.machines.host.run("nft", &["list", "ruleset"])?;
    note(&mut summary, "nothing is left in the kernel", left.trim().is_empty(), Duration::ZERO);
    border.start_controller()?;
    settle(border, "the last picture", &rows)?;

    chapter("Summary");
    for Outcome { what, held, note } in &summary {
        say(&format!("   {} {what:<44}{note}", if *held { "ok" } else { "!!" }));
    }
    Ok(summary.iter().all(|it| it.held))
}

/// The picture with these nodes behind every Service and the blog at this host port.
fn rows(nodes: Expected, blog: u16) -> Vec<Row> {
    use Expected::Nobody;
    use Protocol::{Tcp, Udp};
    vec![
        Row { what: "blog", port: blog, protocol: Tcp, from_outside: nodes, from_vpn: nodes },
        Row { what: "dns", port: 53, protocol: Udp, from_outside: nodes, from_vpn: nodes },
        Row { what: "admin", port: 22, protocol: Tcp, from_outside: Nobody, from_vpn: nodes },
        Row { what: "shop", port: 8080, protocol: Tcp, from_outside: Nobody, from_vpn: nodes },
    ]
}

/// Runs `change` while a client connects every 5 ms, waits for the picture, and returns the time
/// between the first and the last connection that failed.
fn during(
    border: &Border,
    change: impl FnOnce(&Border) -> Result<()>,
    rows: &[Row],
) -> Result<Duration> {
    let to: SocketAddr = "198.51.100.1:443".parse()?;
    let probe = Probe::new(to, Protocol::Tcp).within(Duration::from_millis(500));
    let prober = border.machines.outside.prober(probe, Duration::from_millis(5))?;
    change(border)?;
    settle(border, "the picture after the change", rows)?;
    let attempts = prober.stop()?;
    let mut failed = attempts.iter().filter(|it| it.outcome.server().is_none()).map(|it| it.at);
    let first = failed.next();
    let last = failed.next_back().or(first);
    let gap = first
        .zip(last)
        .map_or(Duration::ZERO, |(first, last)| since(first, last).max(Duration::from_millis(5)));
    let lost = attempts.iter().filter(|it| it.outcome.server().is_none()).count();
    say(&format!("   {} connections meanwhile, {lost} of them failed", attempts.len()));
    Ok(gap)
}

/// Waits until the picture is as expected; when it never is, shows it as it is.
fn settle(border: &Border, what: &str, rows: &[Row]) -> Result<Duration> {
    let settled = border.until(what, || picture::holds(border, rows));
    if settled.is_err() {
        picture::draw(border, rows)?;
    }
    settled
}

fn since(first: SystemTime, last: SystemTime) -> Duration {
    last.duration_since(first).unwrap_or_default()
}

fn note(summary: &mut Vec<Outcome>, what: &'static str, held: bool, took: Duration) {
    let note = if took.is_zero() { String::new() } else { format!("{} ms", took.as_millis()) };
    say(&format!(
        "   {} {what}{}",
        if held { "ok" } else { "!!" },
        if note.is_empty() { String::new() } else { format!(" ({note})") }
    ));
    summary.push(Outcome { what, held, note });
}

fn indent(text: &str) -> String {
    text.lines().map(|it| format!("   {it}")).collect::<Vec<_>>().join("\n")
}
