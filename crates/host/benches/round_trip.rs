//! What one command costs on a wire without delay (a veth pair): over the standing session in both modes, locally, and, beside
//! them, with a fresh `ssh` process for each command.
//!
//! `cargo bench -p host`. Needs root, sshd, sudo and nft; prints milliseconds.

use std::io::{self, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use command::{Command, Program};
use host::{ClientKey, Executor, Local, Mode, Ssh, SshHost};
use testkit::{Lab, sshd};

/// Commands of one kind in one round; rounds of all kinds take turns.
const COMMANDS: usize = 40;
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let found = sshd::available().and_then(|()| Lab::as_root("round-trip"));
    let Some(lab) = testkit::require(found) else { return Ok(()) };
    let client = lab.machine("client")?;
    let (forced_host, sudo_host) = (lab.machine("forced")?, lab.machine("sudo")?);
    lab.link(&client, "eth0", &["10.9.1.1/24"], &forced_host, "eth0", &["10.9.1.2/24"])?;
    lab.link(&client, "eth1", &["10.9.2.1/24"], &sudo_host, "eth0", &["10.9.2.2/24"])?;
    let apply = format!("{} serve /run/portcullis", env!("CARGO_BIN_EXE_host-apply-under-test"));
    let forced = sshd::Options::new(&forced_host, "10.9.1.2".parse()?)
        .user("apply")
        .sudoers(&format!("apply ALL=(root) NOPASSWD: {apply}"))
        .key_options(&format!("restrict,command=\"sudo -n {apply}\""))
        .start()?;
    let sudo = sshd::Options::new(&sudo_host, "10.9.2.2".parse()?)
        .user("nftables")
        .sudoers("nftables ALL=(root) NOPASSWD: /usr/sbin/nft -f -")
        .key_options("restrict")
        .start()?;
    for machine in [&client, &forced_host, &sudo_host] {
        machine.nft("add table inet t\nadd set inet t s { type inet_service; }\n")?;
    }

    let no_op = Command::new(Program::Ip).arg("-V");
    let nft = |document: &str| Command::new(Program::Nft).args(["-f", "-"]).stdin(document);
    let add = nft("add element inet t s { 7 }\n");
    // Whatever removes something waits until no packet looks at it any more.
    let replace = nft("add element inet t s { 8 }\ndelete element inet t s { 8 }\n");
    let mut times = Times::default();
    let done = client.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut ways: Vec<(&str, Box<dyn Executor>)> = vec![
                ("local", Box::new(Local::new())),
                (
                    "ssh, forced command",
                    Box::new(Ssh::new(describe(&forced, Mode::ForcedCommand)?)),
                ),
                ("ssh, sudo", Box::new(Ssh::new(describe(&sudo, Mode::Sudo)?))),
            ];
            for round in 0..=ROUNDS {
                for (what, command) in [("no-op", &no_op), ("add", &add), ("replace", &replace)] {
                    for (way, executor) in &mut ways {
                        for _ in 0..COMMANDS {
                            let begin = Instant::now();
                            let output = executor.run(command).await?;
                            let took = begin.elapsed();
                            ensure!(output.succeeded(), "{way}: {output:?}");
                            // The first round only warms up.
                            if round > 0 {
                                times.note(what, way, took);
                            }
                        }
                    }
                    let sudo_n = if command.program.needs_root() { "sudo -n " } else { "" };
                    for _ in 0..COMMANDS {
                        let begin = Instant::now();
                        run_ssh(&sudo, &client, &format!("{sudo_n}{command}"), &command.stdin)?;
                        if round > 0 {
                            times.note(what, "a fresh ssh process", begin.elapsed());
                        }
                    }
                }
            }
            Ok(())
        })
    });
    done.context("the lab was made by root")?.map(|()| times.print())?
}

fn describe(server: &sshd::SshServer, mode: Mode) -> anyhow::Result<SshHost> {
    let key = ClientKey::from_text(&std::fs::read_to_string(server.private_key())?)?;
    let address = server.address();
    let host_key = server.host_key().parse()?;
    let mut host = SshHost::new(address.ip().to_string(), server.user(), host_key, key);
    host.port = address.port();
    host.mode = mode;
    Ok(host)
}

fn run_ssh(
    server: &sshd::SshServer,
    machine: &testkit::Machine,
    line: &str,
    stdin: &str,
) -> anyhow::Result<()> {
    let mut child = server
        .client(machine)
        .arg(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    child.stdin.take().context("it is piped")?.write_all(stdin.as_bytes())?;
    ensure!(child.wait()?.success(), "{line}");
    Ok(())
}

#[derive(Default)]
struct Times(Vec<(String, String, Vec<Duration>)>);

impl Times {
    fn note(&mut self, what: &str, way: &str, took: Duration) {
        match self.0.iter_mut().find(|it| it.0 == what && it.1 == way) {
            Some((_, _, times)) => times.push(took),
            None => self.0.push((what.to_owned(), way.to_owned(), vec![took])),
        }
    }

    fn print(mut self) -> anyhow::Result<()> {
        let mut out = io::stdout();
        writeln!(out, "{:<10} {:<22} {:>8} {:>8} {:>8}", "", "", "p50 ms", "p99 ms", "max ms")?;
        for (what, way, times) in &mut self.0 {
            times.sort_unstable();
            let at = |share: f64| {
                let index = ((times.len() - 1) as f64 * share).round() as usize;
                times[index].as_secs_f64() * 1000.0
            };
            let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
            writeln!(out, "{what:<10} {way:<22} {p50:>8.2} {p99:>8.2} {max:>8.2}")?;
        }
        Ok(())
    }
}
