//! A program that is started before it is needed.
//!
//! Through sudo, `nft` needs longer to start than to do its work. It asks the kernel nothing before
//! it has read its input to the end, so it can as well wait for it: whatever changes on the host
//! meanwhile is no different to it. One that never gets any input changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::exec::Running;
use super::session::Session;
use crate::{ExecuteError, Limits};

/// The programs that wait in one session: none, or one.
#[derive(Default)]
pub(super) struct Standby(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    None,
    /// Asked for with this line.
    Started(String, JoinHandle<Result<Running, ExecuteError>>),
    /// The host has no room for one.
    NotHere,
}

impl Standby {
    /// Starts one for next time.
    pub(super) fn start(session: &Arc<Session>, line: String) {
        let mut state = session.standby().lock();
        if matches!(*state, State::None) {
            let (session, asked) = (Arc::clone(session), line.clone());
            let starting = tokio::spawn(async move {
                let mut running = Running::start(&session, asked).await?;
                running.started(&session).await?;
                Ok(running)
            });
            *state = State::Started(line, starting);
        }
    }

    /// Takes the one that waits for the input of this very command.
    pub(super) async fn take(session: &Session, line: &str, limits: Limits) -> Option<Running> {
        let starting = session.standby().lock().take(|asked| asked == line)?;
        let mut running = starting.await.ok()?.ok()?;
        running.waits(limits).then_some(running)
    }

    /// Makes room for another program; true when there was one to dismiss. None is started again.
    pub(super) async fn make_room(session: &Session) -> bool {
        let starting = {
            let mut state = session.standby().lock();
            let starting = state.take(|_| true);
            *state = State::NotHere;
            starting
        };
        let Some(starting) = starting else { return false };
        if let Ok(Ok(running)) = starting.await {
            running.dismiss().await;
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(
        &mut self,
        is_it: impl FnOnce(&str) -> bool,
    ) -> Option<JoinHandle<Result<Running, ExecuteError>>> {
        match std::mem::take(self) {
            Self::Started(line, starting) if is_it(&line) => Some(starting),
            other @ (Self::None | Self::Started(..) | Self::NotHere) => {
                *self = other;
                None
            }
        }
    }
}
