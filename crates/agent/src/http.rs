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

use crate::metrics::Metrics;
use crate::status::Snapshot;

/// What the pages read.
#[derive(Clone)]
pub(crate) struct Pages {
    /// The latest state.
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    /// The counters.
    pub(crate) metrics: Arc<Metrics>,
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
    let reasons = pages.snapshot.borrow().unready();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], pages.metrics.page()).into_response()
}

async fn status(State(pages): State<Pages>) -> Response {
    let snapshot = pages.snapshot.borrow().clone();
    match serde_json::to_string_pretty(&*snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
