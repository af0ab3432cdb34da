//! When the files have come to rest, so that none is read half written. No disk and no clock.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long nothing must happen before the files are read.
const QUIET: Duration = Duration::from_millis(10);

/// How long to wait for a writer to close its file, and for quiet in all.
const PATIENCE: Duration = Duration::from_millis(500);

/// What happened to a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Happened {
    /// Its content is being written.
    Writing,
    /// Its writer closed it.
    Closed,
    /// It was renamed, removed, or its metadata changed: complete as it is.
    Other,
}

/// Waits for the files to come to rest.
#[derive(Debug, Default)]
pub(super) struct Settle {
    first: Option<Instant>,
    last: Option<Instant>,
    /// Files that are being written, and when that was last seen.
    writing: BTreeMap<PathBuf, Instant>,
}

impl Settle {
    /// Takes in that something happened to a file.
    pub(super) fn happened(&mut self, path: &Path, what: Happened, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
        match what {
            Happened::Writing => {
                self.writing.insert(path.to_owned(), now);
            }
            Happened::Closed | Happened::Other => {
                self.writing.remove(path);
            }
        }
    }

    /// When to read the files; `None` while there is no reason to.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let quiet = self.last? + QUIET;
        let latest = self.first? + PATIENCE;
        let written = self.writing.values().map(|it| *it + PATIENCE).max();
        // Many files may change in turn for ever, so there is an end to waiting for quiet. A file
        // that is being written is waited for longer: read half, it would say the wrong thing.
        Some(written.map_or(quiet.min(latest), |it| it.max(quiet)))
    }

    /// Forgets everything: the files are about to be read.
    pub(super) fn read(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happened_so_nothing_is_read() {
        assert_eq!(Settle::default().poll_timeout(), None);
    }

    #[test]
    fn a_renamed_file_is_read_as_soon_as_it_is_quiet() {
        check(&[(0, "a", Happened::Other)], 10);
        check(&[(0, "a", Happened::Other), (7, "b", Happened::Other)], 17);
    }

    #[test]
    fn a_file_is_read_when_its_writer_has_closed_it() {
        check(&[(0, "a", Happened::Writing), (40, "a", Happened::Closed)], 50);
    }

    #[test]
    fn a_writer_that_never_closes_is_not_waited_for_longer_than_half_a_second() {
        check(&[(0, "a", Happened::Writing), (100, "a", Happened::Writing)], 600);
        check(&[(0, "a", Happened::Writing), (100, "b", Happened::Other)], 500);
    }

    #[test]
    fn files_that_change_for_ever_are_read_all_the_same() {
        let events: Vec<_> = (0..100).map(|it| (it * 9, "a", Happened::Other)).collect();
        check(&events, 500);
    }

    #[track_caller]
    fn check(events: &[(u64, &str, Happened)], expected: u64) {
        let start = Instant::now();
        let mut settle = Settle::default();
        for &(at, path, what) in events {
            settle.happened(Path::new(path), what, start + Duration::from_millis(at));
        }
        let read = settle.poll_timeout().expect("something happened");
        assert_eq!(read - start, Duration::from_millis(expected));
        settle.read();
        assert_eq!(settle.poll_timeout(), None);
    }
}
