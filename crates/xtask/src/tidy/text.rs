//! Rules about the text of single files.

/// A Rust file longer than this cannot be held in the head; split it by noun.
const MAX_LINES: usize = 500;

/// Names that say nothing about what lives behind them.
const EMPTY_NAMES: [&str; 13] = [
    "util", "utils", "common", "shared", "helper", "helpers", "misc", "manager", "handler", "data",
    "info", "base", "core",
];

/// Returns what is wrong with the file at `path`, relative to the root.
pub(crate) fn check(path: &str, content: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |line: usize, what: &str| complaints.push(format!("{path}:{line}: {what}"));

    for (index, line) in content.lines().enumerate() {
        if line.trim_end() != line && !path.ends_with(".md") && !is_verbatim(path) {
            complain(index + 1, "trailing blank");
        }
    }
    if !content.is_empty() && !content.ends_with('\n') && !is_verbatim(path) {
        complain(content.lines().count(), "no newline at the end");
    }
    if path.ends_with(".rs") {
        check_rust(path, content, complain);
    }
    complaints
}

fn check_rust(path: &str, content: &str, mut complain: impl FnMut(usize, &str)) {
    if !content.starts_with("//!") && !content.starts_with("#!") {
        complain(1, "the first line must be a `//!` header that says what is here");
    }
    let lines = content.lines().count();
    if lines > MAX_LINES {
        complain(lines, &format!("{lines} lines; more than {MAX_LINES}, split it by noun"));
    }
    let stem = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if EMPTY_NAMES.contains(&stem) {
        complain(1, "this file's name says nothing; name what lives here");
    }
    let markers = ["TODO", "FIXME", "XXX"];
    for (index, line) in content.lines().enumerate() {
        if !path.ends_with("tidy/text.rs") && markers.iter().any(|it| line.contains(it)) {
            complain(index + 1, "finish it or write it into docs/out-of-scope.md");
        }
        if line.trim() == "#[should_panic]" {
            complain(index + 1, "say which panic: `#[should_panic(expected = …)]`");
        }
        // Two good uses: a part that another test, which the reason names, runs as a process; and a
        // law that is written down before the code meets it, which the reason says.
        let meant = line.contains("test") || line.contains("\"does not hold yet: ");
        if line.trim_start().starts_with("#[ignore") && !meant {
            complain(
                index + 1,
                "an ignored test looks like a passed one; use testkit::requirement",
            );
        }
    }
}

/// Files that hold the bytes of something else: listings, captured output, fuzz inputs.
fn is_verbatim(path: &str) -> bool {
    path.contains("/testdata/") || path.contains("/corpus/") || path == "LICENSE"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_file_passes() {
        check_file("crates/api/src/port.rs", "//! Ports.\n", &[]);
    }

    #[test]
    fn a_rust_file_says_what_it_is() {
        check_file("a/b.rs", "use std;\n", &["b.rs:1: the first line must be"]);
        check_file("a/util.rs", "//! Things.\n", &["util.rs:1: this file's name says nothing"]);
    }

    #[test]
    fn blanks_and_loose_ends_are_found() {
        check_file("a.toml", "x = 1 \n", &["a.toml:1: trailing blank"]);
        check_file("a.toml", "x = 1", &["a.toml:1: no newline"]);
        check_file("a.rs", "//! A.\n// TODO\n", &["a.rs:2: finish it"]);
        check_file("a.rs", "//! A.\n#[ignore]\n", &["a.rs:2: an ignored test"]);
        check_file("a.rs", &"//! A.\n".repeat(501), &["a.rs:501: 501 lines"]);
    }

    #[test]
    fn captured_text_is_left_as_it_is() {
        check_file("crates/firewall/testdata/x/listing.json", "a \nb", &[]);
    }

    #[track_caller]
    fn check_file(path: &str, content: &str, expected: &[&str]) {
        let found = check(path, content);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}");
        }
    }
}
