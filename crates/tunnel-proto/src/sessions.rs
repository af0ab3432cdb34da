//! Which session of an agent counts.
//!
//! An agent that comes back must never meet its own ghost: the session with the higher epoch takes
//! over at once, whatever the older one believes of itself.

use std::collections::BTreeMap;

/// The sessions of a gateway: one for each agent. `K` names an agent, `S` is whatever a session is.
#[derive(Clone, Debug)]
pub struct Sessions<K, S> {
    held: BTreeMap<K, (u64, S)>,
}

impl<K, S> Default for Sessions<K, S> {
    fn default() -> Self {
        Self { held: BTreeMap::new() }
    }
}

/// A session that is not the newest of its agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the agent has a session with epoch {held}, which is not older than {offered}")]
pub struct NotNewer {
    /// The epoch of the session that stays.
    pub held: u64,
    /// The epoch of the session that is turned away.
    pub offered: u64,
}

impl<K: Ord, S> Sessions<K, S> {
    /// No session.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a session in. Returns the one that it takes the place of, which must be told
    /// ([`crate::message::ToAgent::Evicted`]) and closed.
    ///
    /// # Errors
    ///
    /// When the agent's present session is as new or newer; `session` is dropped.
    pub fn join(&mut self, agent: K, epoch: u64, session: S) -> Result<Option<S>, NotNewer> {
        match self.held.get(&agent) {
            Some((held, _)) if *held >= epoch => Err(NotNewer { held: *held, offered: epoch }),
            _ => Ok(self.held.insert(agent, (epoch, session)).map(|(_, evicted)| evicted)),
        }
    }

    /// The session with this epoch has ended. Returns it; `None` when a newer one had taken its
    /// place.
    ///
    /// Nothing is remembered of it: an agent whose clock was set back is let in again.
    pub fn leave(&mut self, agent: &K, epoch: u64) -> Option<S> {
        match self.held.get(agent) {
            Some((held, _)) if *held == epoch => self.held.remove(agent).map(|(_, it)| it),
            _ => None,
        }
    }

    /// The session of an agent.
    #[must_use]
    pub fn get(&self, agent: &K) -> Option<&S> {
        self.held.get(agent).map(|(_, session)| session)
    }

    /// The epoch of an agent's session.
    #[must_use]
    pub fn epoch(&self, agent: &K) -> Option<u64> {
        self.held.get(agent).map(|(epoch, _)| *epoch)
    }

    /// Every session, by agent.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &S)> {
        self.held.iter().map(|(agent, (_, session))| (agent, session))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newer_session_evicts_the_older() {
        let mut sessions = Sessions::new();
        assert_eq!(sessions.join("a", 1, "first"), Ok(None));
        assert_eq!(sessions.join("b", 9, "other"), Ok(None));
        assert_eq!(sessions.join("a", 2, "second"), Ok(Some("first")));
        assert_eq!(sessions.leave(&"a", 1), None, "the ghost takes nothing with it");
        assert_eq!(sessions.get(&"a"), Some(&"second"));
        assert_eq!(sessions.len(), 2);
    }

    #[test]
    fn the_older_session_is_turned_away() {
        let mut sessions = Sessions::new();
        assert_eq!(sessions.join("a", 5, "held"), Ok(None));
        let error = sessions.join("a", 4, "late").expect_err("older");
        assert_eq!(
            error.to_string(),
            "the agent has a session with epoch 5, which is not older than 4"
        );
        assert_eq!(sessions.join("a", 5, "twin"), Err(NotNewer { held: 5, offered: 5 }));
        assert_eq!(sessions.get(&"a"), Some(&"held"));
    }

    #[test]
    fn an_agent_whose_clock_was_set_back_is_let_in_once_the_ghost_is_gone() {
        let mut sessions = Sessions::new();
        assert_eq!(sessions.join("a", 5, "held"), Ok(None));
        assert_eq!(sessions.leave(&"a", 5), Some("held"));
        assert_eq!(sessions.join("a", 1, "again"), Ok(None));
    }

    proptest! {
        #[test]
        fn the_highest_epoch_stays(epochs in proptest::collection::vec(0_u64..20, 1..30)) {
            let mut sessions = Sessions::new();
            let mut taken = 0;
            for epoch in &epochs {
                match sessions.join((), *epoch, *epoch) {
                    Ok(evicted) => {
                        prop_assert!(evicted.is_none_or(|it| it < *epoch));
                        taken += 1;
                    }
                    Err(error) => prop_assert!(error.held >= *epoch),
                }
            }
            prop_assert!(taken >= 1);
            prop_assert_eq!(sessions.epoch(&()), epochs.iter().copied().max());
        }
    }
}
