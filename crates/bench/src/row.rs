//! One figure, beside its peer and its bar.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What a figure must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// No bar: it is here to compare.
    None,
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    value: f64,
    unit: &'static str,
    peer: Option<String>,
    peer_value: Option<f64>,
    /// The value by the peer's.
    ratio: Option<f64>,
    bar: Option<String>,
    holds: bool,
    /// How it was measured, for people.
    #[serde(skip)]
    note: String,
}

impl Row {
    /// A figure. One without a bar always holds.
    pub(crate) fn new(name: &str, value: f64, unit: &'static str, bar: Bar) -> Self {
        let (text, holds) = match bar {
            Bar::None => (None, true),
            Bar::AtMost(most) => (Some(format!("<= {most} {unit}")), value <= most),
            Bar::AtLeast(least) => (Some(format!(">= {least} {unit}")), value >= least),
        };
        let (name, note) = (name.to_owned(), String::new());
        Self {
            name,
            value,
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            bar: text,
            holds,
            note,
        }
    }

    /// The same figure of somebody else, measured in the same run.
    pub(crate) fn beside(mut self, peer: &str, value: f64) -> Self {
        self.peer = Some(peer.to_owned());
        self.peer_value = Some(value);
        self.ratio = (value != 0.0).then(|| self.value / value);
        self
    }

    /// Says how it was measured.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether the bar holds.
    pub(crate) fn holds(&self) -> bool {
        self.holds
    }

    fn cells(&self) -> [String; 7] {
        [
            self.name.clone(),
            format!("{} {}", number(self.value), self.unit),
            self.bar.clone().unwrap_or_default(),
            match (&self.bar, self.holds) {
                (None, _) => String::new(),
                (Some(_), true) => "yes".to_owned(),
                (Some(_), false) => "NO".to_owned(),
            },
            self.peer.clone().unwrap_or_default(),
            self.peer_value.map(|it| format!("{} {}", number(it), self.unit)).unwrap_or_default(),
            self.ratio.map(|it| format!("{it:.3}")).unwrap_or_default(),
        ]
    }
}

impl fmt::Display for Row {
    /// One line: the figure, its bar, its peer and how it was measured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, value, bar, holds, peer, peer_value, ratio] = self.cells();
        write!(f, "{name}: {value}")?;
        if !bar.is_empty() {
            write!(f, " ({bar}: {holds})")?;
        }
        if !peer.is_empty() {
            write!(f, "; {peer}: {peer_value}, ratio {ratio}")?;
        }
        if !self.note.is_empty() {
            write!(f, "; {}", self.note)?;
        }
        Ok(())
    }
}

/// The table in Markdown, with columns of even width.
pub(crate) fn table(rows: &[Row]) -> String {
    let head = ["figure", "value", "bar", "holds", "beside it", "its value", "ratio"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| lines.iter().map(|it| it[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (index, cells) in lines.iter().enumerate() {
        for (cell, width) in cells.iter().zip(&widths) {
            text += &format!("| {cell:<width$} ");
        }
        text += "|\n";
        if index == 0 {
            widths.iter().for_each(|it| text += &format!("| {} ", "-".repeat(*it)));
            text += "|\n";
        }
    }
    text
}

/// Writes `target/bench/JOB.json`, beside the directory of this program.
pub(crate) fn write(job: &str, rows: &[Row]) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("this program lies in no target directory")?;
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{job}.json"));
    let text = serde_json::to_string_pretty(rows)? + "\n";
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file)
}

/// Three digits that matter.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_holds_up_to_and_including_its_value() {
        for (value, bar, holds) in [
            (10.0, Bar::AtMost(10.0), true),
            (10.1, Bar::AtMost(10.0), false),
            (95.0, Bar::AtLeast(95.0), true),
            (94.9, Bar::AtLeast(95.0), false),
            (1e9, Bar::None, true),
        ] {
            assert_eq!(Row::new("it", value, "ms", bar).holds(), holds, "{value} {bar:?}");
        }
        // What is no number was not measured.
        assert!(!Row::new("it", f64::NAN, "ms", Bar::AtMost(10.0)).holds());
    }

    #[test]
    fn a_row_is_written_with_exactly_these_fields() {
        let row = Row::new("lag", 5.0, "ms", Bar::AtMost(10.0)).beside("peer", 10.0).note("n");
        assert_eq!(
            serde_json::to_string(&row).expect("a row is JSON"),
            r#"{"name":"lag","value":5.0,"unit":"ms","peer":"peer","peer_value":10.0,"ratio":0.5,"bar":"<= 10 ms","holds":true}"#
        );
    }
}
