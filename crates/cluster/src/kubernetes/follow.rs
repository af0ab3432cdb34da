//! Follows one kind: list, watch, and again from where it stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use planner::cluster_view::Change;
use planner::finding::Severity;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Settings;
use super::feed::{Feed, Reduced};
use super::reduce::Followed;
use crate::backoff::Backoff;
use crate::report::Seen;
use crate::source::{Health, KindHealth, LastError, Place, Problem, Revision, State, Unreadable};
use crate::trouble::{Trouble, status_code};

/// How long a watch must last to count as one. Something between us and the server that ends
/// each watch at once must not be answered with a loop without a pause.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// How many failures in a row make the position untrustworthy, so that the list is read again.
/// The server may have been restored from a backup and wait for a version that never comes.
const FAILURES_PER_POSITION: u32 = 3;

/// What the tasks of all kinds share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) settings: Settings,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) health: Arc<watch::Sender<Health>>,
    pub(super) revision: Revision,
    pub(super) seen: Arc<Seen>,
}

/// Follows `K` until nobody reads the changes any more.
pub(super) async fn follow<K: Followed>(context: Context) {
    let mut follower = Follower::<K>::new(context);
    let mut backoff = Backoff::new(follower.context.settings.backoff);
    while !follower.context.changes.is_closed() {
        let result = match follower.position.clone() {
            None => follower.list().await,
            Some(version) => follower.watch(version).await,
        };
        let Err(trouble) = result else {
            backoff.succeeded(Instant::now());
            follower.failures = 0;
            continue;
        };
        let state = follower.failed(trouble).await;
        let pause = backoff.failed(Instant::now(), rand::random());
        sleep(match state {
            State::Absent => K::ABSENT_PAUSE.unwrap_or(pause),
            State::Starting | State::Watching | State::Retrying | State::Forbidden => pause,
        })
        .await;
    }
}

struct Follower<K> {
    context: Context,
    api: Api<K>,
    feed: Feed,
    /// The version up to which everything is known; `None` when the list must be read.
    position: Option<String>,
    /// How many tries in a row failed.
    failures: u32,
}

impl<K: Followed> Follower<K> {
    fn new(context: Context) -> Self {
        let api = Api::all(context.client.clone());
        Self { context, api, feed: Feed::new(K::KIND, K::KEEPS), position: None, failures: 0 }
    }

    /// Reads the complete list and delivers it.
    async fn list(&mut self) -> Result<(), Trouble> {
        let within = self.context.settings.request_timeout;
        let mut page = ListParams::default().limit(self.context.settings.page_size);
        page.field_selector = K::FIELDS.map(str::to_owned);
        let mut items = Vec::new();
        let version = loop {
            let list = timeout(within, self.api.list(&page)).await;
            let list = list.map_err(|_| Trouble::Silent(within))??;
            items.extend(list.items.into_iter().map(|it| self.take(it)));
            match list.metadata.continue_.filter(|it| !it.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break list.metadata.resource_version.filter(|it| !it.is_empty()),
            }
        };
        let version = version.ok_or(Trouble::NoVersion)?;

        let present = items.iter().map(Reduced::reference).collect();
        self.context.seen.retain(K::KIND, &present);
        self.raise(&version);
        let change = self.feed.listed(items);
        self.deliver(Some(change)).await;
        self.position = Some(version);
        self.heard(true, |health| {
            health.listed = true;
            health.lists += 1;
        });
        Ok(())
    }

    /// Watches from `version` until the server ends the watch.
    async fn watch(&mut self, version: String) -> Result<(), Trouble> {
        let Settings { watch_timeout, request_timeout, silence, .. } = self.context.settings;
        let seconds = u32::try_from(watch_timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let mut params = WatchParams::default().timeout(seconds);
        params.field_selector = K::FIELDS.map(str::to_owned);
        let stream = timeout(request_timeout, self.api.watch(&params, &version)).await;
        let stream = stream.map_err(|_| Trouble::Silent(request_timeout))??;
        let mut stream = std::pin::pin!(stream);
        let opened = Instant::now();
        self.set_state(State::Watching);

        let silence = watch_timeout + silence;
        loop {
            let event = timeout(silence, stream.next()).await;
            let Some(event) = event.map_err(|_| Trouble::Silent(silence))? else { break };
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let version = object.meta().resource_version.clone();
                    let item = self.take(object);
                    let change = self.feed.applied(item);
                    self.advance(version, change).await?;
                }
                WatchEvent::Deleted(object) => {
                    let version = object.meta().resource_version.clone();
                    self.context.seen.forget(&object.reference());
                    let change = self.feed.deleted(&object.reduce());
                    self.advance(version, change).await?;
                }
                WatchEvent::Bookmark(bookmark) => {
                    self.position = Some(bookmark.metadata.resource_version);
                    self.heard(false, |_| {});
                }
                WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            }
            // Whatever failed before, the server answers from our position.
            self.failures = 0;
        }
        match opened.elapsed() {
            lasted if lasted < SHORTEST_WATCH => Err(Trouble::TooShort(lasted)),
            _ => Ok(()),
        }
    }

    fn take(&self, object: K) -> Reduced {
        object.show(&self.context.seen);
        object.reduce()
    }

    async fn advance(
        &mut self,
        version: Option<String>,
        change: Option<Change>,
    ) -> Result<(), Trouble> {
        let version = version.filter(|it| !it.is_empty()).ok_or(Trouble::NoVersion)?;
        let delivered = change.is_some();
        if delivered {
            self.raise(&version);
        }
        self.position = Some(version);
        self.deliver(change).await;
        self.heard(false, |health| health.events += u64::from(delivered));
        Ok(())
    }

    /// What is delivered next is as new as this.
    fn raise(&self, version: &str) {
        // A version that is no number orders nothing; only very old servers have such.
        if K::ORDERS
            && let Ok(version) = version.parse()
        {
            self.context.revision.raise(version);
        }
    }

    async fn deliver(&self, change: Option<Change>) {
        if let Some(change) = change {
            // Nobody reads any more: the loop notices and ends.
            let _ = self.context.changes.send(change).await;
        }
    }

    /// Notes a failure, and decides from where to go on.
    async fn failed(&mut self, trouble: Trouble) -> State {
        self.failures += 1;
        if matches!(trouble, Trouble::Expired(_) | Trouble::NoVersion)
            || self.failures >= FAILURES_PER_POSITION
        {
            self.position = None;
        }

        let message = trouble.chain();
        let state = match trouble {
            Trouble::Forbidden(_) => State::Forbidden,
            Trouble::NoSuchKind(_) if self.is_absent().await => {
                self.position = None;
                State::Absent
            }
            Trouble::NoSuchKind(_)
            | Trouble::Expired(_)
            | Trouble::Silent(_)
            | Trouble::TooShort(_)
            | Trouble::NoVersion
            | Trouble::Other(_) => State::Retrying,
        };
        let is_none = match state {
            State::Absent => true,
            // What was read once stays in effect.
            State::Forbidden => K::MAY_BE_FORBIDDEN && !self.is_listed(),
            State::Starting | State::Watching | State::Retrying => false,
        };
        if is_none {
            self.absent().await;
        }
        if self.failures == 1 && !K::IS_OPTIONAL {
            tracing::warn!(kind = %K::KIND, error = message, "cannot follow a kind, trying again");
        } else {
            tracing::debug!(kind = %K::KIND, error = message, failures = self.failures, "again");
        }
        self.update(|health| {
            health.errors += 1;
            health.last_error = Some(LastError { message, at: Timestamp::now() });
        });
        self.set_state(state);
        state
    }

    /// Whether the API server itself, and not something before it, says that there is no such
    /// kind. Not asked for kinds that are part of every server.
    async fn is_absent(&self) -> bool {
        if K::ABSENT_PAUSE.is_none() {
            return false;
        }
        let (group, version) = (K::group(&()), K::api_version(&()));
        let within = self.context.settings.request_timeout;
        let client = &self.context.client;
        let Ok(Ok(groups)) = timeout(within, client.list_api_groups()).await else { return false };
        if !groups.groups.iter().any(|it| it.name == group) {
            return true;
        }
        match timeout(within, client.list_api_group_resources(&version)).await {
            Ok(Ok(list)) => !list.resources.iter().any(|it| it.name == K::plural(&())),
            Ok(Err(error)) => status_code(&error) == Some(404),
            Err(_) => false,
        }
    }

    /// Whether a complete list was delivered.
    fn is_listed(&self) -> bool {
        self.context.health.borrow().kinds.get(&K::KIND).is_some_and(|it| it.listed)
    }

    /// Delivers that there are none, once.
    async fn absent(&mut self) {
        let health = self.context.health.borrow().kinds.get(&K::KIND).cloned();
        if health.is_some_and(|it| it.listed && it.objects == 0) {
            return;
        }
        self.context.seen.retain(K::KIND, &BTreeSet::new());
        let change = self.feed.listed(Vec::new());
        self.deliver(Some(change)).await;
        self.heard(true, |health| {
            health.listed = true;
            health.lists += 1;
        });
    }

    /// Notes that something came, and what is known now.
    fn heard(&self, notify: bool, change: impl FnOnce(&mut KindHealth)) {
        let objects = self.feed.len();
        let unreadable = self.feed.unreadable().iter().map(|(object, error)| Problem {
            place: Place::Object(object.clone()),
            severity: Severity::Error,
            problem: format!("cannot be read: {error}; its last good state stays in effect"),
            remedy: "correct it, or bring program and custom resource definition to one version"
                .to_owned(),
            unreadable: Unreadable::Object(object.clone()),
        });
        let unreadable: Vec<Problem> = unreadable.collect();
        self.context.health.send_if_modified(|health| {
            if let Some(kind) = health.kinds.get_mut(&K::KIND) {
                kind.objects = objects;
                kind.last_heard = Some(Timestamp::now());
                change(kind);
            }
            let is_stale =
                |it: &Problem| matches!(&it.place, Place::Object(object) if object.kind == K::KIND);
            let before = health.problems.iter().filter(|it| is_stale(it)).count();
            let same = before == unreadable.len()
                && unreadable.iter().all(|it| health.problems.contains(it));
            if !same {
                health.problems.retain(|it| !is_stale(it));
                health.problems.extend(unreadable);
            }
            notify || !same
        });
    }

    fn update(&self, change: impl FnOnce(&mut KindHealth)) {
        self.context.health.send_if_modified(|health| {
            if let Some(kind) = health.kinds.get_mut(&K::KIND) {
                change(kind);
            }
            false
        });
    }

    fn set_state(&self, state: State) {
        let place = Place::Kind(K::KIND);
        let problem = self.problem(state);
        self.context.health.send_if_modified(|health| {
            let Some(kind) = health.kinds.get_mut(&K::KIND) else { return false };
            if kind.state == state {
                return false;
            }
            tracing::info!(kind = %K::KIND, ?state, "following a kind");
            kind.state = state;
            kind.since = Timestamp::now();
            health.problems.retain(|it| it.place != place);
            health.problems.extend(problem);
            true
        });
    }

    fn problem(&self, state: State) -> Option<Problem> {
        let resource = K::RESOURCE;
        let (problem, remedy) = match state {
            State::Starting | State::Watching | State::Retrying => return None,
            // Somebody else's kinds, which one may well do without.
            State::Absent if K::IS_OPTIONAL => return None,
            State::Forbidden if K::MAY_BE_FORBIDDEN => return None,
            State::Forbidden => (
                "the API server forbids to list and watch them; what is known stays in effect",
                format!("grant `list` and `watch` on `{resource}`, as the shipped role does"),
            ),
            State::Absent => (
                "the API server does not know the kind, so there are none",
                "apply them: `portcullis install manifests | kubectl apply -f -`".to_owned(),
            ),
        };
        let severity = if state == State::Absent { Severity::Warning } else { Severity::Error };
        let place = Place::Kind(K::KIND);
        let unreadable = Unreadable::Nothing;
        Some(Problem { place, severity, problem: problem.to_owned(), remedy, unreadable })
    }
}
