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
mod epok;
mod gateway;
mod host_apply;
mod host_choice;
mod install;
mod logging;
mod manifest;
mod migrate;
mod objects;
mod plan;
mod reach;
mod ssh_scan;
mod status;
mod take_over;
mod version;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use program::arguments::parse;
use program::runtime::{block_on, block_on_all};
use program::{ending, print};

use crate::arguments::{Arguments, Output, Subcommand};
use crate::ending::Result;
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
