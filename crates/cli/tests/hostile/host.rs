//! A host on which others were at work, or where something is missing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;
use testkit::Protocol::{Tcp, Udp};
use testkit::border::{HOST, at};
use testkit::lab::Daemon;
use testkit::wait;

use crate::objects;
use crate::place::{PATIENCE, PROGRAM, Place};
use crate::told;

/// Tables named like ours that somebody else made, each with something else in it.
const OTHERS: [&str; 6] = [
    "table inet portcullis { chain input { type filter hook input priority 0; policy accept; ip saddr 192.0.2.1 drop; }; }",
    "table inet portcullis { set mine { type ipv4_addr; flags timeout; }; chain c { ip saddr @mine accept; }; }",
    "table inet portcullis { map interfaces { type ipv4_addr : verdict; }; counter c { }; }",
    "table inet portcullis { chain nat-prerouting { type filter hook prerouting priority 0; policy drop; }; }",
    "table inet portcullis { chain nat-prerouting { }; chain nodes-all-1 { accept; }; }",
    "table inet portcullis { map everywhere { type inet_proto . inet_service : verdict; elements = { tcp . 22 : drop }; }; }",
];

#[test]
fn a_table_of_somebody_else_with_our_name_is_replaced() -> anyhow::Result<()> {
    let Some(place) = Place::build("others", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    for other in OTHERS {
        place.host().run_with_input("nft", &["-f", "-"], &format!("flush ruleset\n{other}"))?;
        let controller = place.start()?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        told::well(&place)?;
        let rules = place.host().run("nft", &["list", "ruleset"])?;
        let foreign = ["mine", "drop", "192.0.2.1", "counter c"];
        assert!(!foreign.iter().any(|it| rules.contains(it)), "{other}\n{rules}");
        controller.kill();
    }
    Ok(())
}

#[test]
fn chains_with_names_that_nft_cannot_write_are_removed() -> anyhow::Result<()> {
    let Some(place) = Place::build("names-of-chains", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    // A word of nft's language, and what would be another statement.
    for name in ["ip", "a b; flush ruleset"] {
        let chain = format!(
            "{{\"nftables\":[{{\"add\":{{\"chain\":{{\"family\":\"inet\",\"table\":\"portcullis\",\"name\":\"{name}\"}}}}}}]}}"
        );
        place.host().run_with_input("nft", &["-j", "-f", "-"], &chain)?;
        wait::until_ok("the chain is gone", PATIENCE, || {
            let listing = place.host().run("nft", &["-j", "list", "ruleset"])?;
            Ok((!listing.contains(&format!("\"name\": \"{name}\""))).then_some(()))
        })?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        told::well(&place)?;
    }
    Ok(())
}

#[test]
fn a_table_that_was_put_to_sleep_wakes_up() -> anyhow::Result<()> {
    let Some(place) = Place::build("dormant", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    place.host().nft("add table inet portcullis { flags dormant; }")?;
    place
        .wait_reached(at(HOST, 443), Tcp)
        .with_context(|| place.status().unwrap_or_default().to_string())?;
    told::well(&place)
}

#[test]
fn chains_named_like_ours_are_removed_and_jumps_to_them() -> anyhow::Result<()> {
    let Some(place) = Place::build("chains", "backend: iptables")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    for rule in [
        "-t nat -N PORTCULLIS-mine",
        "-t nat -A PORTCULLIS-mine -p tcp --dport 443 -j RETURN",
        "-t nat -I PREROUTING -m limit --limit 1/s -j PORTCULLIS-mine",
        "-N PORTCULLIS-ACCEPT",
        "-A PORTCULLIS-ACCEPT -j DROP",
        "-A FORWARD -j PORTCULLIS-ACCEPT",
    ] {
        let args: Vec<_> = ["-w"].into_iter().chain(rule.split(' ')).collect();
        place.host().run("iptables", &args)?;
    }
    let _controller = place.start()?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    told::well(&place)?;
    let rules = place.host().run("iptables-save", &[])?;
    assert!(!rules.contains("mine") && !rules.contains("DROP"), "{rules}");
    Ok(())
}

#[test]
fn without_nft_the_remedy_is_told_and_with_it_all_is_well() -> anyhow::Result<()> {
    let Some(place) = Place::build("no-nft", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let programs = Programs::without(&["nft", "conntrack"])?;
    let _controller = programs.start(&place)?;
    let error = told::error(&place, &["nft"])?;
    assert!(error.contains("install"), "no remedy in {error:?}");
    programs.add("nft")?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    told::well(&place)
}

#[test]
fn without_conntrack_and_ss_everything_is_forwarded() -> anyhow::Result<()> {
    let Some(place) = Place::build("no-conntrack", "")? else { return Ok(()) };
    place
        .write("dns", &objects::service("dns", &[("portcullis.dev/host-ports", "53:30053:udp")]))?;
    let programs = Programs::without(&["conntrack"])?;
    programs.script("ss", "exit 1\n")?;
    let _controller = programs.start(&place)?;
    place.wait_reached(at(HOST, 53), Udp)?;
    place.remove("dns")?;
    place.wait_closed(at(HOST, 53), Udp)?;
    told::well(&place)
}

#[test]
fn an_nft_that_stands_still_is_given_up_and_tried_again() -> anyhow::Result<()> {
    let Some(place) = Place::build("stopped", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let programs = Programs::without(&["nft"])?;
    programs.script("nft", "kill -STOP $$\n")?;
    let controller = programs.start(&place)?;
    // The program itself goes on to answer, and does not spin.
    wait::until_ok("nft stands still", PATIENCE, || {
        Ok(place.status().ok().filter(|it| it["complete"] == true).map(drop))
    })?;
    let before = told::ticks(controller.pid())?;
    told::error_within(&place, &["nft", "30"], Duration::from_secs(60))?;
    let used = told::ticks(controller.pid())? - before;
    assert!(used < 500, "{used} hundredths of a second");
    programs.replace("nft")?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    told::well(&place)
}

#[test]
fn an_nft_that_prints_rubbish_changes_nothing() -> anyhow::Result<()> {
    for (name, script, part) in [
        ("rubbish", "printf 'na\\033[2J\\n'; exit 0\n", "not a listing"),
        ("empty", "exit 0\n", "not a listing"),
        ("failing", "printf 'evil \\033[2J\\nmore' >&2; exit 1\n", "evil"),
        ("endless", "exec cat /dev/zero\n", "nft"),
        ("killed", "kill -9 $$\n", "signal"),
    ] {
        let Some(place) = Place::build(name, "")? else { return Ok(()) };
        place.write("blog", &objects::blog())?;
        let programs = Programs::without(&["nft"])?;
        programs.add("nft")?;
        let first = programs.start(&place)?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        first.kill();
        programs.script("nft", script)?;
        let controller = programs.start(&place)?;
        told::error(&place, &[part])?;
        place.wait_reached(at(HOST, 443), Tcp)?;
        assert!(!controller.log().contains("\u{1b}[2J"), "{}", controller.log());
        let memory = told::resident(controller.pid())?;
        assert!(memory < 400, "{name}: {memory} MiB");
        programs.replace("nft")?;
        told::well(&place)?;
        place.wait_reached(at(HOST, 443), Tcp)?;
    }
    Ok(())
}

#[test]
fn a_file_system_that_nobody_may_write_is_enough() -> anyhow::Result<()> {
    let Some(place) = Place::build("read-only", "")? else { return Ok(()) };
    place.write("blog", &objects::blog())?;
    let manifests = place.manifests.path().to_str().unwrap_or_default();
    let script = "mount -o remount,ro,bind / / 2>/dev/null || mount --bind -o ro / / ; \
                  for it in /tmp /run /var /home; do mount --bind $it $it && mount -o remount,ro,bind $it; done; \
                  exec \"$@\"";
    let _controller = place.host().spawn(
        "unshare",
        &[
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
            PROGRAM,
            "controller",
            "--manifests",
            manifests,
            "--host",
            "edge",
        ],
    )?;
    place.wait_reached(at(HOST, 443), Tcp)?;
    told::well(&place)
}

/// A directory in the place of the system's programs, for one controller alone.
struct Programs(TempDir);

/// What the program starts on a host.
const NEEDED: [&str; 8] = [
    "nft",
    "conntrack",
    "ip",
    "ss",
    "iptables-save",
    "iptables-restore",
    "ip6tables-save",
    "ip6tables-restore",
];

impl Programs {
    fn without(missing: &[&str]) -> anyhow::Result<Self> {
        let programs = Self(TempDir::new()?);
        for name in NEEDED.iter().filter(|it| !missing.contains(it)) {
            programs.add(name)?;
        }
        Ok(programs)
    }

    /// A copy of the system's program.
    fn add(&self, name: &str) -> anyhow::Result<()> {
        let real = ["/usr/sbin", "/usr/bin"].iter().map(|it| Path::new(it).join(name));
        let real = real.into_iter().find(|it| it.exists());
        let real = real.ok_or_else(|| anyhow::anyhow!("{name} is not installed"))?;
        let draft = self.0.path().join(format!(".{name}"));
        fs::copy(real, &draft)?;
        Ok(fs::rename(draft, self.0.path().join(name))?)
    }

    /// A program that does something else.
    fn script(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let draft = self.0.path().join(format!(".{name}"));
        fs::write(&draft, format!("#!/bin/sh\n{text}"))?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(draft, self.0.path().join(name))?)
    }

    /// The system's program again.
    fn replace(&self, name: &str) -> anyhow::Result<()> {
        self.add(name)
    }

    /// Starts the controller with these programs in place of those in `/usr/sbin`.
    fn start(&self, place: &Place) -> anyhow::Result<Daemon> {
        let manifests = place.manifests.path().to_str().unwrap_or_default();
        let programs = self.0.path().to_str().unwrap_or_default();
        let script = "programs=$1; shift; for it in /usr/local/sbin /usr/sbin; do \
                      mount --bind \"$programs\" $it || exit 9; done; exec \"$@\"";
        place.host().spawn(
            "unshare",
            &[
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                programs,
                PROGRAM,
                "controller",
                "--manifests",
                manifests,
                "--host",
                "edge",
            ],
        )
    }
}
