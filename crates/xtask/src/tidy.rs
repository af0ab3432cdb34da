//! House rules that no linter knows, checked over the files that git tracks.
//!
//! Each rule is a function from text to complaints, so that it can be shown a bad example in a
//! test; this file gathers the text and prints what the rules say.

mod rooms;
mod text;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Checks every rule and prints every complaint before it fails.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = tracked_files(root)?;
    let mut complaints = Vec::new();
    let mut read = 0;
    for path in &files {
        let Ok(content) = std::fs::read_to_string(root.join(path)) else { continue };
        read += 1;
        complaints.extend(text::check(path, &content));
    }
    ensure!(read > 20, "only {read} tracked text files were found below {}", root.display());

    let architecture = root.join("ARCHITECTURE.md");
    let architecture = std::fs::read_to_string(&architecture)
        .with_context(|| format!("cannot read {}", architecture.display()))?;
    let metadata = output(root, "cargo", &["metadata", "--no-deps", "--format-version", "1"])?;
    complaints.extend(rooms::check(&architecture, &metadata)?);
    complaints.extend(rooms::check_walls(root, &architecture));

    for complaint in &complaints {
        report(complaint);
    }
    if !complaints.is_empty() {
        bail!("{} of the house rules are broken", complaints.len());
    }
    Ok(())
}

fn tracked_files(root: &Path) -> Result<Vec<String>> {
    let listing = output(root, "git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    Ok(listing.lines().map(str::to_owned).collect())
}

fn output(root: &Path, program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    ensure!(output.status.success(), "{program} {args:?} failed with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no UTF-8"))
}

#[expect(clippy::print_stderr, reason = "this program talks to a person at a terminal")]
fn report(complaint: &str) {
    eprintln!("tidy: {complaint}");
}
