//! Waiting for a level with a deadline, where the other side sends no event.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// How often a level is looked at. Short against what is waited for, long against a look.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `ready` yields a value.
///
/// # Errors
///
/// Fails at once when `ready` fails, and after `limit` with `what` in the message.
pub(super) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready().with_context(|| format!("while waiting for {what}"))? {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < end, "waited {limit:?} for {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// The same for what is asked asynchronously.
///
/// # Errors
///
/// As [`wait_for`].
pub(super) async fn wait_for_async<T>(
    what: &str,
    limit: Duration,
    mut ready: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready().await.with_context(|| format!("while waiting for {what}"))? {
            return Ok(value);
        }
        anyhow::ensure!(Instant::now() < end, "waited {limit:?} for {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
