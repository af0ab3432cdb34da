//! Generation and house rules.

mod crds;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["crds"] => crds::write(),
        ["crds", "--check"] => crds::check(),
        ["tidy"] => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            tidy::run(&root.canonicalize().context("cannot find the workspace")?)
        }
        _ => bail!("usage: cargo run -p xtask -- crds [--check] | tidy"),
    }
}

#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
