//! The agent: the one process of a lab machine that keeps its namespaces, and speaks and listens
//! inside them.
//!
//! This file is the package's build script and the agent at the same time. A build script is
//! the only program that cargo always builds before a library, whichever crate asks for it, so
//! as a build script it copies itself to a place that the library knows; everything that uses
//! the library finds an agent of exactly its own version, without a second call of cargo.
//!
//! A process of its own is needed because a program with threads cannot enter a user namespace,
//! and because something must outlive a test that is killed and clean up after it.

use std::io::Write as _;
use std::process::ExitCode;

mod client;
mod datagram;
mod hold;
#[expect(unreachable_pub, dead_code, reason = "the library has the same file, and uses all of it")]
mod message;
mod namespace;
mod page;
mod sctp;
mod server;
mod sweep;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let outcome = match args.first().and_then(|it| it.to_str()) {
        None => install(),
        Some("hold") => hold::run(&args[1..]),
        Some("enter") => namespace::enter_and_exec(&args[1..]),
        Some("page") => page::print(&args[1..]),
        Some(other) => Err(format!("`{other}` is not `hold`, `enter` or `page`")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _nobody_listens = writeln!(std::io::stderr(), "testkit agent: {reason}");
            ExitCode::from(127)
        }
    }
}

/// The build script: puts a copy of this program where the library looks for it.
#[expect(clippy::print_stdout, reason = "this is how a build script talks to cargo")]
fn install() -> Result<(), String> {
    let directory =
        std::env::var("OUT_DIR").map_err(|_| "started without `hold`, `enter` or `page`")?;
    let target = std::path::Path::new(&directory).join("testkit-agent");
    let fresh = target.with_extension("fresh");
    let own = std::env::current_exe().map_err(|it| format!("where am I: {it}"))?;
    // Renamed into place: an older agent may still be running from the old file.
    std::fs::copy(own, &fresh).map_err(|it| format!("copy to {}: {it}", fresh.display()))?;
    std::fs::rename(&fresh, &target).map_err(|it| format!("{}: {it}", target.display()))?;
    println!("cargo::rerun-if-changed=agent");
    println!("cargo::rustc-env=TESTKIT_AGENT={}", target.display());
    Ok(())
}
