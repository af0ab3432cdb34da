//! What happens at the border, chapter by chapter.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use testkit::Protocol;
use testkit::border::{HOST, HOST_ON_VPN, HOST6, OUTSIDE, VPN};
use testkit::probe::Probe;

use crate::border::Border;
use crate::picture::{self, Expected, Row};
use crate::place::BLOG;
use crate::screen::{chapter, say, show};
use crate::summary::Summary;

/// What somebody writes by mistake: the second port is no number.
const MISTAKE: &str = "443:30443, eighty";

/// What is said about it, wherever it is said.
const ABOUT_MISTAKE: &str = "eighty";

/// The chapters told so far.
struct Story<'a> {
    border: &'a Border,
    both: Expected,
    second: Expected,
    summary: &'a mut Summary,
}

/// Tells the whole story, and notes what held.
pub(crate) fn tell(border: &Border, summary: &mut Summary) -> Result<()> {
    let nodes = border.place.nodes();
    let (both, second) = (Expected::Nodes(nodes), Expected::Nodes(&nodes[1..]));
    let mut story = Story { border, both, second, summary };
    sketch(border);
    story.begins()?;
    story.a_node_fails_and_comes_back()?;
    story.a_service_moves()?;
    story.a_user_makes_a_mistake()?;
    story.rules_are_deleted()?;
    story.the_controller_dies()?;
    story.clean_up()?;
    let sights = border.place.sights()?;
    if !sights.is_empty() {
        chapter("What else there is to see");
        sights.iter().for_each(show);
    }
    Ok(())
}

/// The machines and their addresses.
fn sketch(border: &Border) {
    let [first, second] = border.place.sketch();
    say(&format!(
        "
   outside {OUTSIDE} --- eth0 {HOST:<12} [      ]
           2001:db8::9           {HOST6:<12} [ edge ] --- {first}
   vpn     {VPN}     --- wg0  {HOST_ON_VPN:<12} [      ] --- {second}
           fd08::2               fd08::1

   outside and vpn dial {HOST} and {HOST6}; `portcullis controller` runs on edge."
    ));
}

impl Story<'_> {
    fn begins(&mut self) -> Result<()> {
        chapter("Four Services on two nodes, forwarded by one host");
        say("   blog for everyone; dns over UDP; admin not from outside;");
        say("   shop only from 10.8.0.0/24 and fd08::/64");
        self.border.start_controller()?;
        let rows = self.rows();
        let took = self.settle("the first picture", &rows)?;
        self.draw("everyone reaches what is meant for them", &rows, took)
    }

    fn a_node_fails_and_comes_back(&mut self) -> Result<()> {
        let [first, _] = self.border.place.nodes();
        chapter(&format!("Node {first} goes down"));
        let down = rows(self.second, 443);
        let mut noticed = None;
        let gap = self.during(&down, || {
            noticed = Some(self.border.place.stop_node()?);
            Ok(())
        })?;
        let note = match noticed {
            Some(it) if it.after > Duration::from_secs(1) => {
                let after = it.after.as_millis();
                let rest = gap.saturating_sub(it.after).as_millis();
                say(&format!(
                    "   {} after {after} ms; the last connection failed {rest} ms later",
                    it.who
                ));
                format!("{} ms ({} after {after} ms)", gap.as_millis(), it.who)
            }
            Some(_) | None => milliseconds(gap),
        };
        let held = picture::draw(self.border, &down)?;
        self.note("a node went down", held, note);

        chapter(&format!("Node {first} comes back"));
        self.border.place.start_node()?;
        let took = self.settle("both nodes", &self.rows())?;
        self.draw("the node came back", &self.rows(), took)
    }

    fn a_service_moves(&mut self) -> Result<()> {
        chapter("Service blog moves to host port 8443");
        self.annotate_blog(&BLOG.replace("443:", "8443:"))?;
        let mut moved = rows(self.both, 8443);
        moved.push(Row {
            what: "",
            port: 443,
            protocol: Protocol::Tcp,
            from_outside: Expected::Nobody,
            from_vpn: Expected::Nobody,
        });
        let took = self.settle("the new port", &moved)?;
        self.draw("a Service changed its port", &moved, took)?;
        self.border.place.annotate_blog(BLOG)?;
        self.settle("the old port", &self.rows()).map(|_| ())
    }

    fn a_user_makes_a_mistake(&mut self) -> Result<()> {
        chapter("Somebody writes nonsense; what was good stays, and is told");
        let mut told = Vec::new();
        let mut took = Duration::ZERO;
        let gap = self.during(&self.rows(), || {
            self.annotate_blog(MISTAKE)?;
            let patience = self.border.place.patience();
            took = self.border.until("word of the mistake", patience, || {
                told = self.border.place.told(ABOUT_MISTAKE)?;
                Ok(!told.is_empty())
            })?;
            Ok(())
        })?;
        told.iter().for_each(show);
        self.note("a mistake is told to who made it", !told.is_empty(), milliseconds(took));
        let held = gap.is_zero() && picture::draw(self.border, &self.rows())?;
        self.note("a mistake changes no traffic", held, milliseconds(gap));
        self.border.place.annotate_blog(BLOG).map(|_| ())
    }

    fn rules_are_deleted(&mut self) -> Result<()> {
        chapter("Somebody deletes our whole table by hand");
        let command = ["delete", "table", "inet", "portcullis"];
        say(&format!("   $ nft {}", command.join(" ")));
        self.border.edge.host.run("nft", &command)?;
        let took = self.settle("healing", &self.rows())?;
        self.draw("deleted rules came back", &self.rows(), took)
    }

    fn the_controller_dies(&mut self) -> Result<()> {
        chapter("The controller is killed; forwarding goes on");
        self.border.kill_controller()?;
        self.draw("forwarding outlives the controller", &self.rows(), Duration::ZERO)?;
        let gap = self.during(&self.rows(), || self.border.start_controller())?;
        self.note("a restart interrupts nothing", gap.is_zero(), milliseconds(gap));
        Ok(())
    }

    fn clean_up(&mut self) -> Result<()> {
        chapter("Cleaning up, and starting again from nothing");
        self.border.kill_controller()?;
        show(&("portcullis cleanup".to_owned(), self.border.portcullis(&["cleanup"])?));
        let left = self.border.edge.host.run("nft", &["list", "ruleset"])?;
        self.note("nothing is left in the kernel", left.trim().is_empty(), String::new());
        self.border.start_controller()?;
        let took = self.settle("the last picture", &self.rows())?;
        self.note("everything is there again", true, milliseconds(took));
        Ok(())
    }

    /// The picture as declared, with all nodes.
    fn rows(&self) -> Vec<Row> {
        rows(self.both, 443)
    }

    fn annotate_blog(&self, value: &str) -> Result<()> {
        say(&format!("   {}", self.border.place.annotate_blog(value)?));
        Ok(())
    }

    /// Runs `change` while a client connects every 5 ms, waits for the picture, and returns the
    /// time between the first and the last connection that failed.
    fn during(&self, rows: &[Row], change: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let to: SocketAddr = SocketAddr::new(HOST.parse()?, 443);
        let probe = Probe::new(to, Protocol::Tcp).within(Duration::from_millis(500));
        let prober = self.border.edge.outside.prober(probe, Duration::from_millis(5))?;
        change()?;
        self.settle("the picture after the change", rows)?;
        let attempts = prober.stop()?;
        let failed = attempts.iter().filter(|it| it.outcome.server().is_none()).map(|it| it.at);
        let failed: Vec<SystemTime> = failed.collect();
        say(&format!("   {} connections meanwhile, {} failed", attempts.len(), failed.len()));
        let (Some(first), Some(last)) = (failed.iter().min(), failed.iter().max()) else {
            return Ok(Duration::ZERO);
        };
        Ok(last.duration_since(*first).unwrap_or_default().max(Duration::from_millis(5)))
    }

    /// Waits until the picture is as expected; when it never is, shows it as it is.
    fn settle(&self, what: &str, rows: &[Row]) -> Result<Duration> {
        let patience = self.border.place.patience();
        let settled = self.border.until(what, patience, || picture::holds(self.border, rows));
        if settled.is_err() {
            picture::draw(self.border, rows)?;
        }
        settled
    }

    fn draw(&mut self, what: &'static str, rows: &[Row], took: Duration) -> Result<()> {
        let held = picture::draw(self.border, rows)?;
        self.note(what, held, milliseconds(took));
        Ok(())
    }

    fn note(&mut self, what: &'static str, held: bool, note: String) {
        self.summary.note(what, held, note);
    }
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

fn milliseconds(duration: Duration) -> String {
    if duration.is_zero() { String::new() } else { format!("{} ms", duration.as_millis()) }
}
