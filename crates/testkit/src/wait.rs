//! Waiting for something to become so, instead of sleeping and hoping.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer.
///
/// # Errors
///
/// Says what did not happen when `deadline` has passed.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        anyhow::ensure!(begin.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Like [`until`], for a question that can fail: a failure ends the waiting.
///
/// # Errors
///
/// The first error of `ask`, or what did not happen when `deadline` has passed.
pub fn until_ok<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    until(what, deadline, || ask().transpose())?
}
