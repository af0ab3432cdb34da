//! Keeps one session open: connects, waits for its end, connects again, without end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SshHost;
use super::session::Session;
use crate::ExecuteError;

/// Whether there is a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkState {
    /// An attempt to connect is under way.
    Connecting,
    /// There is a session.
    Up,
    /// The last attempt failed; the next one follows by itself.
    Down(ExecuteError),
}

/// Tells whenever the state of a session changes.
#[derive(Clone, Debug)]
pub struct LinkWatch(watch::Receiver<State>);

impl LinkWatch {
    /// Waits for a change that was not seen yet; [`None`] when the executor is gone.
    pub async fn changed(&mut self) -> Option<LinkState> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().public())
    }

    /// The state now.
    #[must_use]
    pub fn current(&self) -> LinkState {
        self.0.borrow().public()
    }
}

#[derive(Clone, Debug)]
enum State {
    Connecting,
    Up(Arc<Session>),
    Down(ExecuteError),
}

impl State {
    fn public(&self) -> LinkState {
        match self {
            Self::Connecting => LinkState::Connecting,
            Self::Up(_) => LinkState::Up,
            Self::Down(error) => LinkState::Down(error.clone()),
        }
    }
}

/// The session of one host, and the task that keeps it.
#[derive(Debug)]
pub(super) struct Link {
    host: Arc<SshHost>,
    state: watch::Receiver<State>,
    keeper: JoinHandle<()>,
}

impl Link {
    pub(super) fn keep(host: SshHost) -> Self {
        let host = Arc::new(host);
        let (sender, state) = watch::channel(State::Connecting);
        let keeper = tokio::spawn(keep(Arc::clone(&host), sender));
        Self { host, state, keeper }
    }

    pub(super) fn host(&self) -> &Arc<SshHost> {
        &self.host
    }

    pub(super) fn watch(&self) -> LinkWatch {
        LinkWatch(self.state.clone())
    }

    pub(super) fn current(&self) -> LinkState {
        self.state.borrow().public()
    }

    /// Returns the session, after waiting for an attempt to connect that is under way.
    pub(super) async fn session(&self) -> Result<Arc<Session>, ExecuteError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                // One that has ended is replaced in a moment.
                State::Up(session) if session.is_open() => return Ok(Arc::clone(session)),
                State::Up(_) | State::Connecting => {}
                State::Down(error) => return Err(error.clone()),
            }
            if state.changed().await.is_err() {
                return Err(ExecuteError::unreachable(&self.host.name(), "we are stopping"));
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(host: Arc<SshHost>, state: watch::Sender<State>) {
    let name = host.name();
    let mut failures = 0;
    loop {
        state.send_replace(State::Connecting);
        let error = match Session::open(&host).await {
            Ok(session) => {
                let session = Arc::new(session);
                let since = Instant::now();
                tracing::info!(host = %name, "connected");
                state.send_replace(State::Up(Arc::clone(&session)));
                let reason = session.ended().await;
                tracing::warn!(host = %name, reason, "connection lost");
                // Where sessions end as soon as they begin, it is not the time to hurry.
                if since.elapsed() >= host.timing.silence {
                    failures = 0;
                    continue;
                }
                ExecuteError::unreachable(&name, reason)
            }
            Err(error) => error,
        };
        let pause = jitter(host.timing.retry, host.timing.retry_cap, failures);
        failures = failures.saturating_add(1);
        tracing::debug!(host = %name, %error, ?pause, "no connection");
        state.send_replace(State::Down(error));
        tokio::time::sleep(pause).await;
    }
}

/// A random time from zero to twice as much with each failure ("full jitter"), so that hosts that
/// went away together are not asked together, and neither are we by many controllers.
fn jitter(first: Duration, cap: Duration, failures: u32) -> Duration {
    let most = first.saturating_mul(2_u32.saturating_pow(failures.min(31))).min(cap);
    most.mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_are_spread() {
        let (first, cap) = (Duration::from_millis(200), Duration::from_secs(30));
        for failures in [0, 1, 5, 40, u32::MAX] {
            let pauses: Vec<_> = (0..1000).map(|_| jitter(first, cap, failures)).collect();
            let most = first.saturating_mul(1 << failures.min(20)).min(cap);
            assert!(pauses.iter().all(|it| *it <= most), "{failures} failures");
            assert!(pauses.iter().any(|it| *it > most / 2), "{failures} failures");
            assert!(pauses.iter().any(|it| *it < most / 2), "{failures} failures");
        }
    }
}
