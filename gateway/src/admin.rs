//! The admin listener: pages for probes, Prometheus and people, and the few things that people may
//! change while the gateway runs.

mod actions;
mod pool_page;
mod pool_text;
#[cfg(test)]
mod tests;
mod why_page;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};
use router::pool::Pool;
use router::why::Decisions;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::drain::Drain;
use crate::readiness::Readiness;
use crate::telemetry::{LogLevel, Readings, scrape};

pub use pool_page::PoolPage;
pub use why_page::{WhyPage, WhyRow};

/// Longest wait at shutdown for answers that are being written.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(500);

/// What the page `/` says.
const CONTENTS: &str = "\
/metrics  for Prometheus
/healthz  200 while the process runs
/readyz   200 while requests are served, else 503 with the reasons
/pool     the pods: health, models, engine, bookings; ?format=text: as a table
          POST /pool/POD/cordon: new requests go elsewhere, running ones end; /uncordon: back
/why      the last decisions, the latest first; /why/REQUEST-ID: one with all its candidates
/config   the settings in force and where they were set
/log-level  the log's level; PUT another one
";

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Pages {
    /// What the router knows.
    pub readings: Readings,
    /// The pods themselves, to cordon them.
    pub pool: Pool,
    /// The level of the log.
    pub log_level: LogLevel,
    /// Why the last requests went where they went.
    pub decisions: Arc<Decisions>,
    /// The metrics that count as things happen.
    pub registry: Registry,
    /// Whether the end has begun.
    pub drain: Drain,
    /// The settings in force.
    pub loaded: Arc<Loaded>,
}

/// What `/pool` is asked for.
#[derive(Debug, Deserialize)]
struct PoolQuery {
    #[serde(default)]
    format: Format,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Text,
}

/// The running listener. When dropped, it takes no more connections and closes those that it has.
#[derive(Debug)]
pub struct AdminServer {
    addr: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<io::Result<()>>>,
}

// === impl AdminServer ===

impl AdminServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start(listen: SocketAddr, pages: Pages) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let server = axum::serve(listener, routes(pages))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let task = Some(tokio::spawn(server.into_future()));
        Ok(Self { addr, stop, task })
    }

    /// Where it listens: the port, if the system chose it.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it, and waits a moment for answers that are being written.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        let Some(mut task) = self.task.take() else { return };
        let ended = match timeout(SHUTDOWN_LIMIT, &mut task).await {
            Ok(ended) => ended,
            Err(_elapsed) => {
                task.abort();
                task.await
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the admin listener failed"),
            Err(error) if error.is_cancelled() => {
                tracing::warn!("an admin client did not take its answer in time");
            }
            Err(error) => tracing::error!(%error, "the admin listener's task failed"),
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// The pages by path.
fn routes(pages: Pages) -> Router {
    let missing = || async { (StatusCode::NOT_FOUND, CONTENTS) };
    Router::new()
        .route("/", get(|| async { CONTENTS }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/pool", get(pool))
        .route("/pool/{pod}/cordon", post(actions::cordon))
        .route("/pool/{pod}/uncordon", post(actions::uncordon))
        .route("/log-level", get(actions::log_level).put(actions::set_log_level))
        .route("/why", get(why_last))
        .route("/why/{request_id}", get(why))
        .route("/config", get(config))
        .fallback(missing)
        .layer(middleware::from_fn(actions::not_by_a_page))
        .with_state(pages)
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let reading = (&pages.readings.take(), pages.loaded.config.metrics.epp_names);
    let families = scrape(&pages.registry, reading, Instant::now());
    match families.and_then(|families| TextEncoder::new().encode_to_string(&families)) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn readyz(State(pages): State<Pages>) -> (StatusCode, Json<Readiness>) {
    let reading = pages.readings.take();
    let readiness = Readiness::of(&reading, pages.drain.phase(), Instant::now());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn pool(State(pages): State<Pages>, Query(how): Query<PoolQuery>) -> Response {
    let page = PoolPage::of(&pages.readings.take(), Instant::now());
    match how.format {
        Format::Json => Json(page).into_response(),
        Format::Text => page.to_text().into_response(),
    }
}

async fn why_last(State(pages): State<Pages>) -> Json<Vec<WhyRow>> {
    Json(pages.decisions.latest().iter().map(WhyRow::from).collect())
}

/// One request's attempts, in order.
async fn why(
    State(pages): State<Pages>,
    Path(request_id): Path<String>,
) -> Result<Json<Vec<WhyPage>>, (StatusCode, &'static str)> {
    let attempts = pages.decisions.of(&request_id);
    if attempts.is_empty() {
        return Err((StatusCode::NOT_FOUND, "no such request among the last ones\n"));
    }
    Ok(Json(attempts.iter().map(WhyPage::from).collect()))
}

async fn config(State(pages): State<Pages>) -> Json<serde_json::Value> {
    let loaded = &pages.loaded;
    let set_by =
        loaded.origins.iter().map(|(key, origin)| (key.clone(), json!(origin.to_string())));
    Json(json!({
        "hash": loaded.hash,
        "set_by": set_by.collect::<serde_json::Map<_, _>>(),
        "config": loaded.config.to_json(),
    }))
}
