//! `/healthz`, `/readyz`, `/metrics` and `/status`, for probes and people on this machine.
//!
//! Nothing here changes anything, and nothing here tells a secret. It cannot be reached from
//! outside: only loopback addresses and Unix sockets are served.

mod status;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::task::JoinSet;

use crate::config::MetricsListen;
use crate::error::GatewayError;
use crate::inner::Inner;
use crate::metrics::Metrics;

/// The pages at work, until dropped.
#[derive(Debug)]
pub(crate) struct Pages {
    listener: Option<(SocketAddr, TcpListener)>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Shown {
    inner: Arc<Inner>,
    metrics: Arc<Metrics>,
}

impl Pages {
    /// Serves the pages, where that is wished.
    pub(crate) async fn open(
        at: &MetricsListen,
        inner: Arc<Inner>,
        handed: Option<TcpListener>,
    ) -> Result<Option<Self>, GatewayError> {
        let failed = |source| GatewayError::Metrics { at: at.to_string(), source };
        let shown = Shown { metrics: Arc::new(Metrics::new(&inner)), inner };
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .with_state(shown);
        let mut serving = JoinSet::new();
        let listener = match at {
            MetricsListen::Off => return Ok(None),
            MetricsListen::Loopback(address) => {
                let handed = handed.filter(|it| it.local_addr().is_ok_and(|it| it == *address));
                let listener = match handed {
                    Some(listener) => listener,
                    None => bind(*address).await.map_err(failed)?,
                };
                let kept = listener.try_clone().map_err(failed)?;
                let listener = crate::socket::adopt_tcp(listener).map_err(failed)?;
                serving.spawn(async move { ended(axum::serve(listener, router).await) });
                Some((*address, kept))
            }
            MetricsListen::Unix(path) => {
                let listener = bind_unix(path).map_err(failed)?;
                serving.spawn(async move { ended(axum::serve(listener, router).await) });
                None
            }
        };
        Ok(Some(Self { listener, _serving: serving }))
    }

    /// The socket to hand over.
    pub(crate) fn socket(&self) -> Option<(SocketAddr, BorrowedFd<'_>)> {
        self.listener.as_ref().map(|(address, listener)| (*address, listener.as_fd()))
    }
}

/// Somebody who ends may still have the port for a moment.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match crate::socket::listen(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 20 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            ended => return ended,
        }
    }
}

/// Binds beside the old socket and takes its place, so that there is always one.
fn bind_unix(path: &Path) -> io::Result<tokio::net::UnixListener> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = tokio::net::UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o660))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

fn ended(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let clusters = shown.inner.clusters();
    let lonely = clusters.values().filter(|it| it.members().is_empty());
    let reasons: Vec<String> =
        lonely.map(|it| format!("no agent of cluster {} is connected\n", it.name)).collect();
    if shown.inner.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    // One cluster that is away must not take the others' gateway away.
    if !reasons.is_empty() && reasons.len() == clusters.len() {
        return (StatusCode::SERVICE_UNAVAILABLE, reasons.concat()).into_response();
    }
    "ok\n".into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], shown.metrics.page()).into_response()
}

async fn status(State(shown): State<Shown>) -> Response {
    match serde_json::to_string_pretty(&status::status(&shown.inner)) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
