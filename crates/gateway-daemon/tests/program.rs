//! What `portcullis-gateway` says to who starts it; what it does is tested as a gateway.

use std::path::Path;
use std::process::{Command, Output};

use expect_test::expect_file;

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis-gateway");

#[test]
fn the_help_is_as_reviewed() {
    let output = run(&["--help"]);
    check(&output, 0, "");
    expect_file!["../testdata/help.txt"].assert_eq(&text(&output.stdout));
}

#[test]
fn the_version_is_told_alone() {
    let output = run(&["--version"]);
    check(&output, 0, "");
    let version = concat!("portcullis-gateway ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(text(&output.stdout), version);
}

#[test]
fn a_configuration_is_checked_and_nothing_is_started() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    let good = directory.path().join("good.toml");
    std::fs::write(&good, format!("name = \"fra1\"\nstateDirectory = {state:?}\nclusters = []\n"))
        .expect("written");
    check(&checked(&good), 0, "");
    assert!(!state.exists(), "something was started");

    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "name = \"fra1\"\ngrant = 1\n").expect("written");
    check(&checked(&bad), 2, "error: --config: ");
    check(&checked(&bad), 2, "unknown field `grant`");
    let none = checked(&directory.path().join("none.toml"));
    check(&none, 2, "none.toml: cannot be read");
    check(&none, 2, "portcullis gateway create");
}

#[test]
fn what_cannot_be_accepted_is_refused_before_anything_starts() {
    check(&run(&["--grants", "all"]), 2, "unexpected argument '--grants'");
    check(&run(&["gateway", "run"]), 2, "unexpected argument 'gateway'");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("gateway.toml");
    std::fs::write(&file, "name = \"fra1\"\nclusters = []\n").expect("written");
    let file = file.display().to_string();
    let output = run(&["--config", &file, "--log", "gateway=loud"]);
    check(&output, 2, "error: --log (or PORTCULLIS_LOG): \"gateway=loud\"");
}

#[test]
fn the_unit_starts_it_with_options_that_it_has() {
    let unit =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/systemd/portcullis-gateway.service");
    let unit = std::fs::read_to_string(unit).expect("it is checked in");
    let started = unit.lines().find_map(|it| it.strip_prefix("ExecStart=")).expect("it starts");
    let (program, arguments) = started.split_once(' ').expect("options");
    assert!(program.ends_with("/portcullis-gateway"), "{program}");
    let help = text(&run(&["--help"]).stdout);
    let mut known = 0;
    for argument in arguments.split(' ').filter(|it| it.starts_with('-')) {
        assert!(help.contains(&format!(" {argument} ")), "there is no {argument}");
        known += 1;
    }
    assert!(known > 0, "{arguments}");
    assert!(!arguments.starts_with(|it: char| it.is_alphabetic()), "a subcommand: {arguments}");
}

#[test]
fn nothing_is_linked_that_a_gateway_does_not_need() {
    let bytes = std::fs::read(PROGRAM).expect("the program");
    // Names of functions hold the length of their crate's name before it.
    let names = String::from_utf8_lossy(&bytes);
    let linked = |name: &str| names.contains(&format!("{}{name}", name.len()));
    for needed in ["tunnel_proto", "quinn_proto"] {
        assert!(linked(needed), "{needed}: are there names at all?");
    }
    for other in ["kube_client", "k8s_openapi", "russh", "planner", "firewall", "regex_automata"] {
        assert!(!linked(other), "{other} is linked");
    }
}

fn checked(file: &Path) -> Output {
    run(&["--config", &file.display().to_string(), "--check"])
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_clear().output().expect("the program starts")
}

/// Fails unless it ended with this exit code and said this on standard error; nothing at all for an
/// empty text.
#[track_caller]
fn check(output: &Output, code: i32, said: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(said) && stderr.is_empty() == said.is_empty(), "{stderr}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program prints text")
}
