//! Whatever the arguments are, the program answers with an exit code and, when it refuses, a
//! message; it never panics and never does anything.

use proptest::prelude::*;

use super::program::portcullis;

/// Words that mean something somewhere, beside noise.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "-f",
        "-",
        "--host",
        "--listing",
        "--addresses",
        "--interfaces",
        "--backend",
        "-o",
        "json",
        "--external-interface",
        "--extra-internal-addresses",
        "--exit-code",
        "eth0",
        "edge-a",
        "examples/forward",
        "Cargo.toml",
        "/nonexistent",
        "--",
        "=",
        "",
    ]);
    prop_oneof![3 => known.prop_map(str::to_owned), 1 => "[^\\x00]{0,12}", 1 => "--[a-z-]{1,12}(=[ -~]{0,8})?"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_arguments_of_plan_get_an_answer(words in prop::collection::vec(word(), 0..6)) {
        // Objects come from a file that is there, so that no case looks for a cluster.
        let arguments = ["plan", "-f", "examples/forward"].into_iter();
        let ran = portcullis(arguments.chain(words.iter().map(String::as_str)));
        answered(&ran)?;
    }

    #[test]
    fn any_options_of_epok_get_an_answer(
        interfaces in "[^\\x00]{0,20}",
        external in "[^\\x00]{0,20}",
        extra in "[0-9a-f:./, ]{0,30}",
    ) {
        let interfaces = format!("--interfaces={interfaces}");
        let external = format!("--external-interface={external}");
        let extra = format!("--extra-internal-ips={extra}");
        let ran = portcullis(["epok", "--print-host", &interfaces, &external, &extra, "local"]);
        answered(&ran)?;
    }

    #[test]
    fn any_values_of_install_get_an_answer(user in "[^\\x00]{0,12}", program in "/?[^\\x00]{0,16}") {
        let user = format!("--user={user}");
        let program = format!("--program={program}");
        let ran = portcullis(["install", "sudoers", &user, &program]);
        answered(&ran)?;
        // One account, one line each: nothing that was passed can add a line of its own.
        prop_assert!(ran.stdout.lines().all(|it| it.starts_with('#') || it.matches("NOPASSWD").count() == 1));
    }
}

fn answered(ran: &super::program::Ran) -> Result<(), TestCaseError> {
    prop_assert!([0, 2, 3].contains(&ran.code), "{ran:?}");
    prop_assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    prop_assert!(ran.code != 2 || !ran.stderr.is_empty(), "{ran:?}");
    Ok(())
}
