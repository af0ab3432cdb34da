//! A Host that could hold anything.
#![cfg_attr(fuzzing, no_main)]

use api::host::read_manifest;

/// A Host is refused with at least one problem, each told in one line, or its settings hold
/// together.
pub(crate) fn law(input: &[u8]) {
    let Ok((host, problems)) = read_manifest(&mut serde_json::Deserializer::from_slice(input))
    else {
        return;
    };
    let refused = host.settings();
    let told = refused.as_ref().err().into_iter().flatten().chain(&problems);
    for problem in told {
        assert!(problem.reason.refuses());
        assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
        assert!(!problem.remedy.is_empty());
    }
    match refused {
        Ok(settings) => {
            assert!(!settings.interfaces.is_empty());
            let external = settings.external_interface;
            assert!(external.is_none_or(|it| settings.interfaces.contains(&it)));
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
