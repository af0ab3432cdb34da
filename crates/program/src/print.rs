//! The one place that writes to the terminal: results to standard output, the rest to standard
//! error.
//!
//! Text that came from elsewhere (names, values, messages of other programs) may hold control
//! characters that would move the cursor or forge lines; they are written as escapes.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use anyhow::Result;
use serde::Serialize;

/// Writes one line, or several, of a result.
///
/// # Errors
///
/// Fails when standard output cannot be written; see [`is_closed`].
pub fn line(text: impl fmt::Display) -> Result<()> {
    let text = plain(&text.to_string());
    Ok(writeln!(io::stdout().lock(), "{text}")?)
}

/// Writes text exactly as it is: documents that another program reads.
///
/// # Errors
///
/// As [`line`].
pub fn document(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Writes a result as one JSON document.
///
/// # Errors
///
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    document(&format!("{text}\n"))
}

/// Writes a remark to standard error. Nobody has to listen.
pub fn note(text: impl fmt::Display) {
    let text = plain(&text.to_string());
    let _nobody_listens = writeln!(io::stderr().lock(), "{text}");
}

/// Whether the reader of our standard output has gone, as `head` does: no reason to complain.
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns `text` with every control character but the line break and the tab escaped, and every
/// character that turns the direction of writing.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if turns || (character.is_control() && character != '\n' && character != '\t') {
            // Writing to a string cannot fail.
            let _ = write!(plain, "{}", character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_not_steered_by_what_others_wrote() {
        assert_eq!(plain("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(plain("\u{1b}[2J\u{202e}\r"), "\\u{1b}[2J\\u{202e}\\u{d}");
    }
}
