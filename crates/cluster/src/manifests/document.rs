//! Cuts a file into documents, so that a broken one costs only itself.

/// One document of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Document<'a> {
    /// The line of the file on which the text begins, counted from zero.
    pub(super) line: u64,
    /// The text, from its `---` on.
    pub(super) text: &'a str,
}

/// Cuts `text` at its document markers.
///
/// A line that begins with `---` and a blank is a marker wherever it stands, also within a quoted
/// or block scalar (YAML 1.2.2, production `c-forbidden`), so no YAML need be understood here.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 0);
    let mut offset = 0;
    for (line, content) in (0..).zip(text.split_inclusive('\n')) {
        if is_marker(content) {
            documents.push(Document { line: start_line, text: &text[start..offset] });
            (start, start_line) = (offset, line);
        }
        offset += content.len();
    }
    documents.push(Document { line: start_line, text: &text[start..] });
    documents.retain(|it| !is_empty(it.text));
    documents
}

fn is_marker(line: &str) -> bool {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    line.strip_prefix("---")
        .is_some_and(|it| it.is_empty() || it.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is nothing in it but comments, directives and markers.
fn is_empty(text: &str) -> bool {
    text.lines().all(|it| {
        let it = it.strip_prefix('\u{feff}').unwrap_or(it);
        let it = if is_marker(it) { &it[3..] } else { it };
        let it = it.trim();
        it.is_empty() || it == "..." || it.starts_with(['#', '%'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_markers_and_counts_lines() {
        check("a: 1\n", &[(0, "a: 1\n")]);
        check("a: 1\n---\nb: 2\n", &[(0, "a: 1\n"), (1, "---\nb: 2\n")]);
        check("---\na: 1\n--- # two\nb: 2", &[(0, "---\na: 1\n"), (2, "--- # two\nb: 2")]);
        check("a: 1\r\n---\r\nb: 2\r\n", &[(0, "a: 1\r\n"), (1, "---\r\nb: 2\r\n")]);
        check("--- {a: 1}\n--- {b: 2}\n", &[(0, "--- {a: 1}\n"), (1, "--- {b: 2}\n")]);
    }

    #[test]
    fn leaves_out_what_says_nothing() {
        check("", &[]);
        check("# a comment\n---\n\n---\n...\n", &[]);
        check("%YAML 1.2\n---\na: 1\n", &[(1, "---\na: 1\n")]);
        check("\u{feff}---\na: 1\n", &[(0, "\u{feff}---\na: 1\n")]);
    }

    #[test]
    fn what_only_looks_like_a_marker_cuts_nothing() {
        check("a: |\n  ---\nb: ----\n", &[(0, "a: |\n  ---\nb: ----\n")]);
        check("---a: 1\n", &[(0, "---a: 1\n")]);
    }

    #[track_caller]
    fn check(text: &str, expected: &[(u64, &str)]) {
        let actual: Vec<_> = documents(text).iter().map(|it| (it.line, it.text)).collect();
        assert_eq!(actual, expected);
    }
}
