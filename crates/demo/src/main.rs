//! A whole border on this machine: a host, nodes, clients and real traffic, in network namespaces.
//!
//! `portcullis` itself runs as its users run it, as a program that watches a directory of manifests
//! or a real Kubernetes API. Everything shown is what a real connection saw.

mod border;
mod keeper;
mod picture;
mod place;
mod screen;
mod story;
mod summary;
mod tunnel;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use border::Border;
use clap::Parser;
use keeper::Scratch;
use summary::Summary;

/// Shows Portcullis at work on this machine, with real packets, and checks what it shows.
#[derive(Debug, Parser)]
#[command(name = "portcullis-demo", after_help = EXPLANATION)]
struct Arguments {
    /// Run on a real Kubernetes: an API server, two nodes with kubelets, pods behind Services.
    ///
    /// Needs root, and what `scripts/setup kubernetes images` builds. The controller has exactly the
    /// role of deploy/rbac/controller.yaml.
    #[arg(long)]
    kube: bool,

    /// Leave everything running at the end, and print how to look around and how to stop it.
    #[arg(long)]
    keep: bool,

    /// Go on with two gateways, two agents and a visitor outside.
    #[arg(long)]
    publish: bool,

    /// The program to show; by default the one beside this one.
    #[arg(long, value_name = "FILE")]
    portcullis: Option<PathBuf>,

    /// Be the process that stays, and meet the command in this directory.
    #[arg(long, value_name = "DIR", hide = true)]
    keeper: Option<PathBuf>,
}

const EXPLANATION: &str = "\
A host stands between two clients and two nodes. Four Services are forwarded by it: one for
everyone, one over UDP, one that only the VPN may see, one for a range of addresses. Then things
happen: a node fails and comes back, a Service changes, a user makes a mistake, somebody deletes
our rules, the controller dies. After each of them the same picture is drawn again: one row for
each host port, one column for each client, every cell made of real connections over IPv4 and IPv6,
with the nodes that answered and the source address that they saw. `ok` means: exactly as declared.

Then a home behind a router, which lets nobody in, is published by two gateways on the internet that
two agents at home dial. An agent is killed, packets vanish in silence, a gateway is killed, while a
visitor connects every 10 ms; no connection may fail.

Nothing on this machine changes: all of it lives in namespaces that end with the demo. Without
--kube it needs no root where user namespaces are allowed, and takes seconds.

Exit status: 0 when everything held, 1 when something did not, 2 when this machine cannot run it.

Examples:
  portcullis-demo                 from a directory of manifests
  portcullis-demo --kube          the same on a real Kubernetes
  portcullis-demo --keep          and leave it running to play with";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.keep && arguments.keeper.is_none() {
        return keeper::start().unwrap_or_else(|error| screen::give_up(&error));
    }
    let (program, scratch) = match prepare(&arguments) {
        Ok(prepared) => prepared,
        Err(error) => return screen::give_up(&error),
    };
    let built = match arguments.kube {
        true => {
            screen::say("Starting etcd, the control plane, two nodes and their pods ...");
            Border::on_kubernetes(&program)
        }
        false => Border::on_directory(&program, scratch.path()),
    };
    let border = match built {
        Ok(border) => border,
        Err(error) => return screen::give_up(&error),
    };
    let mut summary = Summary::default();
    let told = story::tell(&border, &mut summary).and_then(|()| match arguments.publish {
        true => tunnel::tell(&program, scratch.path(), &mut summary),
        false => Ok(()),
    });
    let held = match told {
        Ok(()) => {
            summary.draw();
            summary.held()
        }
        Err(error) => {
            screen::failed(&error, &border.controller_log());
            false
        }
    };
    if arguments.keeper.is_some() {
        let own = std::process::id();
        screen::say(&format!(
            "\nStill running; stop it with: kill {own}\n{}",
            border.look_around()
        ));
        if let Err(error) = keeper::stay(&scratch, held) {
            return screen::give_up(&error);
        }
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prepare(arguments: &Arguments) -> Result<(PathBuf, Scratch)> {
    let program = program(arguments.portcullis.clone())?;
    let scratch = match arguments.keeper.clone() {
        Some(directory) => keeper::take_over(directory)?,
        None => Scratch::new()?,
    };
    Ok((program, scratch))
}

fn program(given: Option<PathBuf>) -> Result<PathBuf> {
    let program = match given {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("portcullis"),
    };
    anyhow::ensure!(
        program.is_file(),
        "{} is not there; build it with `cargo build --release --package cli`, or name it with \
         --portcullis",
        program.display()
    );
    Ok(program.canonicalize()?)
}
