//! `/healthz`, `/readyz`, `/metrics` and `/status`, for probes and people.
//!
//! Nothing here changes anything, and nothing here tells a secret; still it binds to loopback
//! unless the user says otherwise.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::board::Board;
use crate::metrics::Metrics;
use crate::publication::Published;
use crate::status::Snapshot;

/// What the pages read.
#[derive(Clone)]
pub(crate) struct Pages {
    /// The agent's name.
    pub(crate) agent: String,
    /// Its node.
    pub(crate) node: Option<String>,
    /// What is published.
    pub(crate) published: watch::Receiver<Arc<Published>>,
    /// What is known of gateways.
    pub(crate) board: Arc<Board>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
}

impl Pages {
    fn snapshot(&self) -> Snapshot {
        let published = Arc::clone(&self.published.borrow());
        let known = self.board.statuses();
        // Every gateway that is declared is shown, dialled already or not.
        let publication = &published.publication;
        let gateways = published.gateways.keys().map(|name| {
            let mut gateway = known.get(name).cloned().unwrap_or_default();
            gateway.name_owners(publication.gateways.get(name).map_or(&[], Vec::as_slice));
            (name.clone(), gateway)
        });
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            agent: self.agent.clone(),
            node: self.node.clone(),
            leader: self.metrics.leader.get() != 0,
            complete: published.complete,
            revision: published.revision,
            problems: published.problems.clone(),
            gateways: gateways.collect(),
            published_ports: publication.gateways.values().map(Vec::len).sum(),
            backends: publication.backends.len(),
            findings: publication.findings.iter().cloned().collect(),
        }
    }
}

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, pages: Pages) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(pages);
    axum::serve(listener, router).await
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let reasons = pages.snapshot().unready();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    pages.metrics.count_bytes(&pages.board.bytes());
    ([(header::CONTENT_TYPE, content_type)], pages.metrics.page()).into_response()
}

async fn status(State(pages): State<Pages>) -> Response {
    match serde_json::to_string_pretty(&pages.snapshot()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
