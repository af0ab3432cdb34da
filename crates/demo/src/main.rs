//! A whole border on this machine: a host, nodes, clients and real traffic, in network namespaces.
//!
//! `portcullis` itself runs as its users run it, as a program that watches a directory of manifests
//! (or a real Kubernetes API). Everything shown is what a real connection saw.

mod border;
mod picture;
mod screen;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows Portcullis at work on this machine, with real packets, and checks what it shows.
///
/// Builds a host, two nodes with backends, a client outside and one on the VPN, in network
/// namespaces; needs no root where user namespaces are allowed. Exit status: 0 when everything held,
/// 1 when something did not, 2 when this machine cannot run it.
#[derive(Debug, Parser)]
#[command(name = "portcullis-demo")]
struct Arguments {
    /// Leave everything running at the end, and print how to look around and how to stop it.
    #[arg(long)]
    keep: bool,

    /// The program to show; by default the one beside this one.
    #[arg(long, value_name = "FILE")]
    portcullis: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let program = match program(arguments.portcullis) {
        Ok(program) => program,
        Err(error) => return screen::give_up(&error),
    };
    let border = match border::Border::build(&program) {
        Ok(border) => border,
        Err(error) => return screen::give_up(&error),
    };
    let held = match story::tell(&border) {
        Ok(held) => held,
        Err(error) => {
            screen::failed(&error, &border.controller_log());
            false
        }
    };
    if arguments.keep {
        screen::say(&border.keep());
    }
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn program(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let program = match given {
        Some(program) => program,
        None => std::env::current_exe()?.with_file_name("portcullis"),
    };
    anyhow::ensure!(
        program.is_file(),
        "{} is not there; build it with `cargo build --release --package cli`, or name it with --portcullis",
        program.display()
    );
    Ok(program.canonicalize()?)
}
