//! Generation and house rules.

mod crds;
mod tidy;

use std::path::Path;

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["crds"] => crds::write(),
        ["crds", "--check"] => crds::check(),
        ["tidy"] => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            tidy::run(&root.canonicalize().context("cannot find the workspace")?)
        }
        _ => bail!("usage: cargo run -p xtask -- crds [--check] | tidy"),
    }
}
