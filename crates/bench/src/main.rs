//! Measures what users feel, beside real peers, and fails when a promise does not hold.
//!
//! Every figure is a median (or the percentile that its name says) of interleaved rounds within
//! one run, so that a machine that gets slower slows the peers as well. The program under test is
//! the released one, run as its users run it.

mod controller;
mod figures;
mod forward;
mod kubernetes;
mod objects;
mod publish;
mod row;
mod screen;
mod witness;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use crate::row::Row;

/// Measures a job of Portcullis beside its peers, in network namespaces on this machine.
///
/// Prints a table and writes it to target/bench/JOB.json. Exit status: 0 when every bar holds, 1
/// when one does not, 2 when something could not be measured. Needs root.
#[derive(Debug, Parser)]
#[command(name = "portcullis-bench")]
struct Arguments {
    /// What to measure.
    job: Job,

    /// Only this bench; may be repeated. An unknown name lists those that exist.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// How many interleaved rounds to take the medians of.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Fewer rounds and shorter times: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,

    /// The program to measure; by default the one beside this one.
    #[arg(long, value_name = "FILE")]
    portcullis: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Job {
    /// Host ports to node ports.
    Forward,
    /// Services on a public gateway.
    Publish,
}

/// What every bench is given.
#[derive(Debug)]
pub(crate) struct Setting {
    portcullis: PathBuf,
    rounds: Option<usize>,
    quick: bool,
}

impl Setting {
    /// The number of rounds: what the user said, else `usual`, else `quick`.
    fn rounds(&self, usual: usize, quick: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { quick } else { usual })
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen::complain(&error);
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "the benches need root");
    let portcullis = match &arguments.portcullis {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("portcullis"),
    };
    let portcullis = portcullis.canonicalize().with_context(|| {
        format!("{}: build it with `cargo build --release --package cli`", portcullis.display())
    })?;
    let rounds = arguments.rounds.map(usize::try_from).transpose()?;
    let setting = Setting { portcullis, rounds, quick: arguments.quick };
    let (job, benches) = match arguments.job {
        Job::Forward => ("forward", forward::BENCHES),
        Job::Publish => ("publish", publish::BENCHES),
    };
    let benches = chosen(benches, &arguments.only)?;

    screen::say(&screen::machine()?);
    let (mut rows, mut failed) = (Vec::<Row>::new(), Vec::new());
    for bench in benches {
        screen::say(&format!("\n{}: {} ({})", bench.name, bench.what, screen::load()?));
        match (bench.run)(&setting) {
            Ok(measured) => {
                measured.iter().for_each(|it| screen::say(&format!("  {it}")));
                rows.extend(measured);
            }
            Err(error) => {
                screen::complain(&error.context(bench.name));
                failed.push(bench.name);
            }
        }
    }
    screen::say(&format!("\n{}\n{}", row::table(&rows), screen::load()?));
    let file = row::write(job, &rows)?;
    screen::say(&format!("written to {}", file.display()));
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(rows.iter().all(Row::holds))
}

fn chosen<'a>(all: &'a [forward::Bench], only: &[String]) -> Result<Vec<&'a forward::Bench>> {
    let names: Vec<_> = all.iter().map(|it| it.name).collect();
    for name in only {
        anyhow::ensure!(
            names.contains(&name.as_str()),
            "--only {name}: there is no such bench, only {}",
            names.join(", ")
        );
    }
    Ok(all.iter().filter(|it| only.is_empty() || only.iter().any(|name| name == it.name)).collect())
}
