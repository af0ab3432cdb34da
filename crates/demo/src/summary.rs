//! What held, line by line, for the end.

use crate::screen::{chapter, say};

/// What was noted so far.
#[derive(Debug, Default)]
pub(crate) struct Summary(Vec<Line>);

#[derive(Debug)]
struct Line {
    what: &'static str,
    held: bool,
    note: String,
}

impl Summary {
    /// Says at once and keeps for the end whether something held.
    pub(crate) fn note(&mut self, what: &'static str, held: bool, note: String) {
        let shown = if note.is_empty() { String::new() } else { format!(": {note}") };
        say(&format!("   {} {what}{shown}", mark(held)));
        self.0.push(Line { what, held, note });
    }

    /// Whether everything held.
    pub(crate) fn held(&self) -> bool {
        self.0.iter().all(|it| it.held)
    }

    /// Draws it all.
    pub(crate) fn draw(&self) {
        chapter("Summary");
        let width = self.0.iter().map(|it| it.what.len()).max().unwrap_or_default();
        for Line { what, held, note } in &self.0 {
            say(format!("   {} {what:<width$}  {note}", mark(*held)).trim_end());
        }
    }
}

fn mark(held: bool) -> &'static str {
    if held { "ok" } else { "!!" }
}
