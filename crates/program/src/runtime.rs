//! The runtime that a program's work happens on.

use anyhow::Context as _;

use crate::ending::Result;

/// Does work on two threads: enough for what waits most of the time.
///
/// # Errors
///
/// What the work returns, or that no runtime can be started.
pub fn block_on(work: impl Future<Output = Result>) -> Result {
    block_on_threads(2, work)
}

/// For what carries visitors' bytes: a thread for each processor that this process may use.
///
/// # Errors
///
/// As [`block_on`].
pub fn block_on_all(work: impl Future<Output = Result>) -> Result {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    block_on_threads(processors.max(2), work)
}

fn block_on_threads(threads: usize, work: impl Future<Output = Result>) -> Result {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let ending = runtime.block_on(work);
    // A thread may still wait for standard input; nobody waits for it.
    runtime.shutdown_background();
    ending
}
