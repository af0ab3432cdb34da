//! Generation and house rules.

mod crds;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["crds"] => crds::write(),
        ["crds", "--check"] => crds::check(),
        _ => bail!("usage: cargo run -p xtask -- crds [--check]"),
    }
}
