//! Waiting for a level that is asked for asynchronously; [`crate::wait`] has the same for the rest.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How often a level is looked at: short against what is waited for, long against a look.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks until there is an answer.
///
/// # Errors
///
/// The first error of `ask`, or what did not happen when `limit` has passed.
pub(super) async fn until_ok<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await.with_context(|| format!("while waiting for {what}"))? {
            return Ok(answer);
        }
        anyhow::ensure!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
