//! `conformance`: the official Gateway API suite against Portcullis, on a real cluster behind NAT.
//!
//! Exit status: 0 when every test passed, 1 when one did not, 2 when this machine cannot run it.

mod portcullis;
mod screen;
mod stage;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use portcullis::Portcullis;
use screen::say;
use stage::Stage;
use testkit::kubernetes::{Cluster, ConformanceSuite};

const USAGE: &str = "usage: conformance [--test NAME] [--portcullis FILE]";
const CANNOT: u8 = 2;
/// The class that the suite's Gateways have.
const CLASS: &str = "portcullis";

struct Arguments {
    test: Option<String>,
    portcullis: PathBuf,
}

fn main() -> ExitCode {
    match arguments().and_then(|it| run(&it)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("conformance: {error:#}"));
            ExitCode::from(CANNOT)
        }
    }
}

fn arguments() -> anyhow::Result<Arguments> {
    let beside = std::env::current_exe()?.with_file_name("portcullis");
    let mut arguments = Arguments { test: None, portcullis: beside };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().context(USAGE);
        match word.as_str() {
            "--test" => arguments.test = Some(value()?),
            "--portcullis" => arguments.portcullis = value()?.into(),
            _ => bail!(USAGE),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    Cluster::available()?;
    let suite = ConformanceSuite::find()?;
    say("Starting a cluster, a router, a gateway and a visitor ...");
    let stage = Stage::build(&suite)?;
    let tree = tree();
    let portcullis = Portcullis::start(&arguments.portcullis, &tree, &stage)?;
    stage.apply(&class())?;
    let class = format!("gatewayclass/{CLASS}");
    let accepted = ["wait", "--for=condition=Accepted=true", &class, "--timeout=60s"];
    stage.kubectl(&accepted).with_context(|| portcullis.logs())?;
    let log = tree.join("target/conformance.log");
    let reports = tree.join("docs/conformance");
    std::fs::create_dir_all(&reports)
        .with_context(|| format!("cannot make {}", reports.display()))?;
    let run = suite::Run {
        test: arguments.test.as_deref(),
        class: CLASS,
        version: env!("CARGO_PKG_VERSION"),
        report: reports.join("report.yaml"),
        log: log.clone(),
    };
    say(&format!("Running the suite; all that it says goes to {}", log.display()));
    let passed = run.go(&suite, &stage);
    portcullis.keep_logs(&tree.join("target/conformance-portcullis.log"))?;
    passed
}

fn class() -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{ name: {CLASS} }}\n\
         spec: {{ controllerName: portcullis.dev/gateway-controller }}\n"
    )
}

fn tree() -> PathBuf {
    // Two levels above this crate, which is never installed.
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.join("../..").canonicalize().unwrap_or(own)
}
