//! The program: arguments, output, exit codes. What it says and does is decided elsewhere.
//!
//! Called by the name `epok` or `epok-clean`, for example through a symbolic link, it takes that
//! program's options.

mod agent_run;
mod arguments;
mod cleanup;
mod completion;
mod connection;
mod controller_command;
mod declared;
mod demo;
mod doctor;
mod ending;
mod epok;
mod gateway;
mod gateway_run;
mod host_apply;
mod host_choice;
mod install;
mod logging;
mod manifest;
mod migrate;
mod objects;
mod plan;
mod print;
mod reach;
mod ssh_scan;
mod status;
mod take_over;
mod version;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::arguments::{Arguments, Output, Subcommand};
use crate::ending::{Ending, Result};
use crate::epok::options::{CleanOptions, EpokOptions};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().and_then(|it| Path::new(it).file_name()?.to_str());
    let ending = match name {
        Some("epok") => parse(&arguments, |it: EpokOptions| block_on(epok::run(&it, Output::Text))),
        Some("epok-clean") => {
            parse(&arguments, |it: CleanOptions| block_on(epok::clean(&it, Output::Text)))
        }
        Some(_) | None => parse(&arguments, portcullis),
    };
    ending::exit_code(ending)
}

/// Reads the arguments and goes on with them. Help and versions that were asked for go to standard
/// output, complaints to standard error.
fn parse<T: Parser>(arguments: &[OsString], go_on: impl FnOnce(T) -> Result) -> Result {
    match T::try_parse_from(arguments) {
        Ok(arguments) => go_on(arguments),
        Err(error) => {
            error.print()?;
            Ok(if error.use_stderr() { Ending::Refused } else { Ending::Done })
        }
    }
}

fn portcullis(arguments: Arguments) -> Result {
    let output = arguments.output;
    match arguments.subcommand {
        Subcommand::Agent(it) => block_on_all(agent_run::run(&it, output)),
        Subcommand::Controller(it) => block_on(controller_command::run(&it)),
        Subcommand::Plan(it) => block_on(plan::plan(&it, output)),
        Subcommand::Render(it) => block_on(plan::render(&it, output)),
        Subcommand::Cleanup(it) => block_on(cleanup::run(&it, output)),
        Subcommand::Status(it) => block_on(status::run(&it, output)),
        Subcommand::Doctor(it) => block_on(doctor::run(&it, output)),
        Subcommand::Migrate(it) => block_on(migrate::run(&it, output)),
        Subcommand::Epok(it) => block_on(epok::run(&it, output)),
        Subcommand::Gateway(it) => block_on_all(gateway::run(&it, output)),
        Subcommand::HostApply(it) => block_on(host_apply::run(&it)),
        Subcommand::Install(it) => install::run(&it, output),
        Subcommand::Completion(it) => completion::run(&it),
        Subcommand::Version => version::run(output),
        Subcommand::Demo(it) => demo::run(&it),
    }
}

fn block_on(work: impl Future<Output = Result>) -> Result {
    block_on_threads(2, work)
}

/// For what carries visitors' bytes: a thread for each processor that this process may use.
fn block_on_all(work: impl Future<Output = Result>) -> Result {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    block_on_threads(processors.max(2), work)
}

fn block_on_threads(threads: usize, work: impl Future<Output = Result>) -> Result {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let ending = runtime.block_on(work);
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    ending
}
