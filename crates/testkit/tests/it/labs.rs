//! Labs come quickly, do what a network does, and leave nothing behind.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::probe::Probe;
use testkit::{Lab, Machine, Missing, Protocol};

#[test]
#[expect(clippy::print_stderr, reason = "how long it took, for people who look")]
fn a_router_a_switch_and_three_hosts_are_built_at_once() -> anyhow::Result<()> {
    for open in OPEN {
        let begin = Instant::now();
        let Some(lab) = testkit::require(open("build")) else { continue };
        let site = Site::build(&lab)?;
        let built = begin.elapsed();
        for (to, name) in [
            ("10.1.0.11:8080", "n1"),
            ("10.1.0.12:8080", "n2"),
            ("[fd02::11]:8080", "n1"),
            ("[fd02::12]:8080", "n2"),
        ] {
            let outcome = site.client.probe(Probe::new(to.parse()?, Protocol::Tcp))?;
            assert_eq!(outcome.server(), Some(name), "{to}: {outcome}");
        }
        let probed = begin.elapsed() - built;
        let user = lab.is_in_user_namespace();
        let begin = Instant::now();
        drop(lab);
        eprintln!(
            "user namespace {user}: 4 machines, 3 wires and a switch built in {built:?}, \
             4 first probes in {probed:?}, removed in {:?}",
            begin.elapsed()
        );
    }
    Ok(())
}

#[test]
fn programs_run_inside_a_machine() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("programs")) else { continue };
        let machine = lab.machine("inside")?;
        assert_eq!(machine.run("hostname", &[])?, "inside\n");
        assert_eq!(machine.run_with_input("cat", &[], "text")?, "text");
        assert_eq!(machine.interfaces()?, Vec::<String>::new());
        assert_eq!(machine.output("false", &[], "")?.status.code(), Some(1));
        let directory = machine.run("pwd", &[])?;
        assert_eq!(Path::new(directory.trim()), std::env::current_dir()?);
        let error = machine.run("ls", &["/no/such/file"]).expect_err("there is no such file");
        let error = error.to_string();
        assert!(error.contains("No such file or directory"), "{error}");
        assert!(error.contains(&machine.enter_by_hand()), "{error}");
        let error = machine.run("no-such-program", &[]).expect_err("there is no such program");
        assert!(error.to_string().contains("start no-such-program: No such file"), "{error}");
    }
    Ok(())
}

#[test]
fn the_command_printed_for_people_enters_the_machine() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("by-hand")) else { continue };
        let machine = lab.machine("inside")?;
        let by_hand = machine.enter_by_hand();
        let mut words = by_hand.split_whitespace();
        let program = words.next().unwrap_or_default();
        let output = Command::new(program).args(words).arg("hostname").output()?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "inside\n", "{by_hand}: {output:?}");
        assert!(lab.to_string().contains(&by_hand), "{lab}");
    }
    Ok(())
}

#[test]
fn each_machine_has_its_own_run_directory() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("run-directory")) else { continue };
        let (a, b) = (lab.machine("a")?, lab.machine("b")?);
        a.run("touch", &["/run/only-here"])?;
        assert!(b.run("ls", &["/run/only-here"]).is_err());
        assert!(!Path::new("/run/only-here").exists());
    }
    Ok(())
}

#[test]
fn a_daemon_that_dies_early_shows_its_log() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::new("daemon")) else { return Ok(()) };
    let machine = lab.machine("a")?;
    let daemon = machine.spawn("ls", &["/no/such/file"])?;
    let error =
        daemon.wait_for_log("listening", Duration::from_secs(30)).expect_err("ls does not listen");
    let error = format!("{error:#}");
    assert!(error.contains("No such file or directory"), "{error}");
    assert!(error.contains("has ended: exit status: 2"), "{error}");
    Ok(())
}

#[test]
fn code_of_this_process_can_enter_a_plain_machine() -> anyhow::Result<()> {
    let Some(lab) = testkit::require(Lab::as_root("enter")) else { return Ok(()) };
    let site = Site::build(&lab)?;
    let interfaces = site.client.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    assert!(interfaces??.contains("eth0:"));
    let stream = site.client.enter(|| std::net::TcpStream::connect("10.1.0.11:8080"))??;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    assert!(line.starts_with("ECHO n1 192.0.2.2:"), "{line}");
    Ok(())
}

#[test]
fn nothing_is_left_after_a_lab_is_dropped() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("dropped")) else { continue };
        let site = Site::build(&lab)?;
        // A daemon that has moved away from its parent, as daemons do.
        site.router.run("setsid", &["--fork", "sleep", "1000"])?;
        let namespaces = namespaces_of(&site);
        assert_eq!(processes_in(&namespaces).len(), 5, "four agents and the sleep");
        drop(lab);
        assert_eq!(processes_in(&namespaces), BTreeSet::new());
        assert_eq!(site.client.run("true", &[]).map_err(|_| "gone"), Err("gone"));
    }
    Ok(())
}

#[test]
fn nothing_is_left_after_a_panic() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("panics")) else { continue };
        let site = Site::build(&lab)?;
        let namespaces = namespaces_of(&site);
        let panicked = std::thread::spawn(move || {
            let _dropped_while_unwinding = lab;
            std::panic::resume_unwind(Box::new("for the test"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(processes_in(&namespaces), BTreeSet::new());
    }
    Ok(())
}

#[test]
fn nothing_is_left_after_the_test_is_killed() -> anyhow::Result<()> {
    for kind in ["plain", "user"] {
        if kind == "plain" && testkit::require(Lab::as_root("killed")).is_none() {
            continue;
        }
        let mut test = child_test("labs::holds_a_lab_until_killed").env("KIND", kind).spawn()?;
        let stdout = test.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let line = lines.find_map(|it| Some(it.split_once("namespaces: ")?.1.to_owned()));
        let namespaces: BTreeSet<_> =
            line.expect("the child says what it made").split(' ').map(str::to_owned).collect();
        testkit::wait::until("four agents and two sleeps", Duration::from_secs(10), || {
            (processes_in(&namespaces).len() == 6).then_some(())
        })?;

        test.kill()?;
        test.wait()?;

        testkit::wait::until("everything has ended", Duration::from_secs(10), || {
            processes_in(&namespaces).is_empty().then_some(())
        })?;
    }
    Ok(())
}

#[test]
#[ignore = "run and killed by the test above"]
#[expect(clippy::print_stdout, reason = "for the test that started this one")]
fn holds_a_lab_until_killed() -> anyhow::Result<()> {
    let user = std::env::var("KIND").is_ok_and(|it| it == "user");
    let lab = if user { Lab::in_user_namespace("killed") } else { Lab::as_root("killed") }?;
    let site = Site::build(&lab)?;
    site.router.run("setsid", &["--fork", "sleep", "1000"])?;
    let _daemon = site.client.spawn("sleep", &["1000"])?;
    let namespaces: Vec<_> = namespaces_of(&site).into_iter().collect();
    println!("namespaces: {}", namespaces.join(" "));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

#[test]
fn a_detached_lab_lives_until_its_agents_are_told_to_end() -> anyhow::Result<()> {
    for open in OPEN {
        let Some(lab) = testkit::require(open("detached")) else { continue };
        let site = Site::build(&lab)?;
        site.router.run("setsid", &["--fork", "sleep", "1000"])?;
        let namespaces = namespaces_of(&site);

        let agents = lab.detach()?;

        assert_eq!(processes_in(&namespaces).len(), 5, "four agents and the sleep");
        let names: BTreeSet<_> = agents.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, BTreeSet::from(["client", "n1", "n2", "router", "wiring"]));
        for (_, pid) in &agents {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(*pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        }
        testkit::wait::until("everything has ended", Duration::from_secs(10), || {
            processes_in(&namespaces).is_empty().then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn an_unprivileged_user_gets_a_lab_too() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // Every other test of this run is the proof.
        return Ok(());
    }
    // The test program and the agent have to be where nobody may read them.
    let directory = tempfile::Builder::new().prefix("testkit-").tempdir()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open)?;
    let program = directory.path().join("it");
    std::fs::copy(std::env::current_exe()?, &program)?;
    let agent = directory.path().join("agent");
    std::fs::copy(testkit::lab::agent_program(), &agent)?;
    let output = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--inh-caps=-all"])
        .arg(&program)
        .args(["--exact", "labs::builds_a_lab_as_nobody", "--ignored", "--nocapture"])
        .current_dir("/")
        .env("TESTKIT_AGENT", &agent)
        .output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if let Some((_, missing)) = stderr.split_once("SKIPPED ") {
        testkit::requirement::skip(&Missing::new(missing.trim(), "see above"));
        return Ok(());
    }
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("as nobody: n2 answered"), "{stdout}");
    Ok(())
}

#[test]
#[ignore = "run by the test above, as nobody"]
#[expect(clippy::print_stdout, reason = "for the test that started this one")]
fn builds_a_lab_as_nobody() -> anyhow::Result<()> {
    assert!(!nix::unistd::geteuid().is_root());
    let Some(lab) = testkit::require(Lab::new("nobody")) else { return Ok(()) };
    assert!(lab.is_in_user_namespace());
    let site = Site::build(&lab)?;
    site.router.nft(
        "table ip t {\n chain c {\n type nat hook postrouting priority 100; masquerade\n }\n }\n",
    )?;
    let outcome = site.client.probe(Probe::new("10.1.0.12:8080".parse()?, Protocol::Tcp))?;
    let answer = outcome.answer().expect("n2 is there");
    assert_eq!(answer.source_seen.ip().to_string(), "10.1.0.1");
    println!("as nobody: {} answered", answer.server);
    assert!(Lab::as_root("nobody").is_err());
    Ok(())
}

pub(crate) type Open = fn(&str) -> Result<Lab, Missing>;

/// Both kinds of lab, for tests that must hold in both.
pub(crate) const OPEN: [Open; 2] = [Lab::as_root, Lab::in_user_namespace];

/// A client, a router, and two nodes on a switch; each node serves its name on port 8080.
pub(crate) struct Site {
    pub(crate) client: Machine,
    pub(crate) router: Machine,
    nodes: Vec<Machine>,
    _servers: Vec<testkit::probe::EchoServer>,
}

impl Site {
    pub(crate) fn build(lab: &Lab) -> anyhow::Result<Self> {
        let router = lab.machine("router")?;
        let client = lab.machine("client")?;
        let (outside, inside) = (["192.0.2.2/24", "fd01::2/64"], ["192.0.2.1/24", "fd01::1/64"]);
        lab.link(&client, "eth0", &outside, &router, "ext0", &inside)?;
        client.route("default", "192.0.2.1")?;
        client.route("default", "fd01::1")?;
        let network = lab.network("nodes")?;
        network.plug(&router, "int0", &["10.1.0.1/24", "fd02::1/64"])?;
        router.forwarding(true)?;
        let mut site = Self { client, router, nodes: Vec::new(), _servers: Vec::new() };
        for number in 1..=2 {
            let node = lab.machine(&format!("n{number}"))?;
            let addresses = [format!("10.1.0.1{number}/24"), format!("fd02::1{number}/64")];
            network.plug(&node, "eth0", &[&addresses[0], &addresses[1]])?;
            node.route("default", "10.1.0.1")?;
            node.route("default", "fd02::1")?;
            site._servers.push(node.serve(node.name(), "[::]:8080".parse()?, Protocol::Tcp)?);
            site.nodes.push(node);
        }
        Ok(site)
    }
}

fn namespaces_of(site: &Site) -> BTreeSet<String> {
    let machines = site.nodes.iter().chain([&site.client, &site.router]);
    machines
        .map(|it| std::fs::read_link(it.net_path()).expect("the agent lives"))
        .map(|it| it.display().to_string())
        .collect()
}

/// The processes of this host that are in one of these network namespaces.
fn processes_in(namespaces: &BTreeSet<String>) -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    processes
        .filter(|it| {
            let namespace = std::fs::read_link(it.path().join("ns/net"));
            namespace.is_ok_and(|it| namespaces.contains(&it.display().to_string()))
        })
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .collect()
}

/// One ignored test of this program, to be run in a process of its own.
fn child_test(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("we run"));
    command
        .args(["--exact", test, "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}
