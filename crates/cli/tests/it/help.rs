//! What the program says about itself. The texts are files, so that a change of them is seen.

use expect_test::expect_file;

use super::program::portcullis;

#[test]
fn every_help_is_as_reviewed() {
    check("", expect_file!["../../testdata/help/portcullis.txt"]);
    check("controller", expect_file!["../../testdata/help/controller.txt"]);
    check("plan", expect_file!["../../testdata/help/plan.txt"]);
    check("render", expect_file!["../../testdata/help/render.txt"]);
    check("cleanup", expect_file!["../../testdata/help/cleanup.txt"]);
    check("migrate epok", expect_file!["../../testdata/help/migrate-epok.txt"]);
    check("epok", expect_file!["../../testdata/help/epok.txt"]);
    check("epok ssh", expect_file!["../../testdata/help/epok-ssh.txt"]);
    check("epok clean", expect_file!["../../testdata/help/epok-clean.txt"]);
    check("status", expect_file!["../../testdata/help/status.txt"]);
    check("doctor", expect_file!["../../testdata/help/doctor.txt"]);
    check("install", expect_file!["../../testdata/help/install.txt"]);
    check("install manifests", expect_file!["../../testdata/help/install-manifests.txt"]);
    check(
        "install epok-permissions",
        expect_file!["../../testdata/help/install-epok-permissions.txt"],
    );
    check("install systemd", expect_file!["../../testdata/help/install-systemd.txt"]);
    check("install agent", expect_file!["../../testdata/help/install-agent.txt"]);
    check("install gateway", expect_file!["../../testdata/help/install-gateway.txt"]);
    check("gateway", expect_file!["../../testdata/help/gateway.txt"]);
    check("gateway run", expect_file!["../../testdata/help/gateway-run.txt"]);
    check("agent", expect_file!["../../testdata/help/agent.txt"]);
    check("agent status", expect_file!["../../testdata/help/agent-status.txt"]);
    check("gateway create", expect_file!["../../testdata/help/gateway-create.txt"]);
    check("gateway list", expect_file!["../../testdata/help/gateway-list.txt"]);
    check("gateway rotate", expect_file!["../../testdata/help/gateway-rotate.txt"]);
    check("install sudoers", expect_file!["../../testdata/help/install-sudoers.txt"]);
    check(
        "install authorized-keys",
        expect_file!["../../testdata/help/install-authorized-keys.txt"],
    );
    check("completion", expect_file!["../../testdata/help/completion.txt"]);
}

#[track_caller]
fn check(subcommand: &str, expected: expect_test::ExpectFile) {
    let help = portcullis(subcommand.split_whitespace().chain(["--help"])).expect_code(0);
    assert_eq!(help.stderr, "");
    expected.assert_eq(&help.stdout);
}

#[test]
fn the_version_names_the_build() {
    let version = portcullis(["version"]).expect_code(0).stdout;
    assert!(
        version.starts_with(concat!("portcullis ", env!("CARGO_PKG_VERSION"), " (commit ")),
        "{version}"
    );
    let build = portcullis(["version", "-o", "json"]).expect_code(0).json();
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(build["system"], "linux");
}

#[test]
fn completions_name_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = portcullis(["completion", shell]).expect_code(0).stdout;
        for word in ["controller", "accept-forwarded", "cleanup"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    portcullis(["completion", "csh"]).expect_code(2);
}

#[test]
fn bash_takes_its_completion() {
    let script = portcullis(["completion", "bash"]).expect_code(0).stdout;
    let bash = std::process::Command::new("bash")
        .args(["-n", "-c", &script])
        .output()
        .expect("bash is installed everywhere");
    assert!(bash.status.success(), "{bash:?}");
}

#[test]
fn the_demo_says_how_to_get_it() {
    // Linked elsewhere, there is nothing beside the program.
    let (_directory, link) = super::program::named("elsewhere");
    let copy = link.with_file_name("copy");
    // By another process: a file that this one has open for writing cannot be started.
    let cp = std::process::Command::new("cp").arg(super::program::PROGRAM).arg(&copy).status();
    assert!(cp.expect("cp runs").success());
    let ran = super::program::Run::new(&copy, ["demo", "--keep"]).end().expect_code(2);
    assert!(ran.stderr.contains("make demo"), "{}", ran.stderr);
}
