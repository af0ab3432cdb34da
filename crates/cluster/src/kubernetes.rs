//! Watches the Kubernetes API: list, then watch, for ever.
//!
//! Several kinds are followed, each by a task of its own, so that what is forbidden, missing or
//! broken about one costs nothing to the others. Promises:
//!
//! - a `Reset` is sent when the list of a kind is complete, all pages of it, and never else;
//! - a watch that ends, fails or falls silent is started again, after a pause that grows to
//!   [`Limits::cap`](crate::backoff::Limits) and never becomes the last one;
//! - after a gap that the server cannot bridge, the complete list is read again, so what was
//!   deleted meanwhile is gone;
//! - a connection that died without a word is noticed within [`Settings::watch_timeout`] and
//!   [`Settings::silence`];
//! - memory holds what planning reads and no more: an object that does not concern us is dropped
//!   as it is decoded.

mod feed;
mod follow;
mod lean;
mod publish;
mod reduce;

pub(crate) use reduce::concerns_us;

use std::sync::Arc;
use std::time::Duration;

use api::host::Host;
use api::object::ObjectKind;
use kube::Client;
use kube::core::DeserializeGuard;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::backoff::Limits;
use crate::report::Seen;
use crate::source::{Health, KINDS, PUBLISH_KINDS, Revision, Source};

/// How the API is watched.
#[derive(Clone, Debug)]
pub struct Settings {
    /// When to try again.
    pub backoff: Limits,
    /// How long the server keeps a watch open before we ask for a new one.
    pub watch_timeout: Duration,
    /// How long silence may last beyond that. Then the connection is dead.
    pub silence: Duration,
    /// How long the server may take to begin to answer, and for each page of a list.
    pub request_timeout: Duration,
    /// How many objects a page of a list holds: bounds memory while listing.
    pub page_size: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backoff: Limits::default(),
            watch_timeout: Duration::from_secs(60),
            silence: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            page_size: 100,
        }
    }
}

/// Starts to watch what forwarding reads.
///
/// `seen` learns what the objects say now about us (status, conditions), for the
/// [reporter](crate::report).
#[must_use]
pub fn watch(client: &Client, settings: &Settings, seen: &Arc<Seen>) -> Source {
    start_watching(client, settings, seen, &KINDS, |tasks, context| {
        tasks.spawn(follow::follow::<lean::Service>(context.clone()));
        tasks.spawn(follow::follow::<lean::Pod>(context.clone()));
        tasks.spawn(follow::follow::<lean::Node>(context.clone()));
        tasks.spawn(follow::follow::<lean::EndpointSlice>(context.clone()));
        tasks.spawn(follow::follow::<DeserializeGuard<Host>>(context));
    })
}

/// Starts to watch those of [what publishing reads](PUBLISH_KINDS) that are among `kinds`.
///
/// Kinds of the Gateway API that the server does not have count as empty, and are looked for again
/// every minute; so do Secrets that may not be read.
#[must_use]
pub fn watch_publish(
    client: &Client,
    settings: &Settings,
    seen: &Arc<Seen>,
    kinds: &[ObjectKind],
) -> Source {
    let kinds: Vec<_> = PUBLISH_KINDS.into_iter().filter(|it| kinds.contains(it)).collect();
    start_watching(client, settings, seen, &kinds, |tasks, context| {
        for kind in &kinds {
            publish::follow(*kind, tasks, context.clone());
        }
    })
}

fn start_watching(
    client: &Client,
    settings: &Settings,
    seen: &Arc<Seen>,
    kinds: &[ObjectKind],
    spawn: impl FnOnce(&mut JoinSet<()>, follow::Context),
) -> Source {
    let (changes, receiver) = mpsc::channel(64);
    let (health, health_receiver) = watch::channel(Health::starting(kinds));
    let revision = Revision::default();
    let context = follow::Context {
        client: client.clone(),
        settings: settings.clone(),
        changes,
        health: Arc::new(health),
        revision: revision.clone(),
        seen: Arc::clone(seen),
    };
    let mut tasks = JoinSet::new();
    spawn(&mut tasks, context);
    Source { changes: receiver, health: health_receiver, revision, tasks }
}
