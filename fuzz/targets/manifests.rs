//! A file of manifests that could hold anything.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

use cluster::manifests::read_text;
use planner::cluster_view::Change;

/// Whatever the text, it becomes a complete set of each kind, of objects with names that the API
/// server would accept, and problems of one line each.
pub(crate) fn law(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (changes, problems) = read_text(Path::new("manifests.yaml"), text);
    assert_eq!(changes.len(), 5);
    for change in changes {
        let Change::Reset(kind, objects) = change else { panic!("only complete sets") };
        for object in objects {
            let reference = object.reference();
            assert_eq!(reference.kind, kind);
            let names = std::iter::once(&reference.name).chain(&reference.namespace);
            for name in names {
                assert!(name.parse::<api::name::ObjectName>().is_ok(), "{name}");
            }
        }
    }
    for problem in problems {
        assert!(!problem.to_string().contains(char::is_control), "more than a line: {problem}");
        assert!(!problem.remedy.is_empty());
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| law(input));
