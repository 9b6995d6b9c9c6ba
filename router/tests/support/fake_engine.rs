//! A pod as the feeds see it: `/health`, `/v1/models`, `/metrics` and `/kv_event_sources` on a port
//! of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What the pod says, changed by the test while it runs.
#[derive(Debug)]
pub(crate) struct Says {
    pub(crate) healthy: AtomicBool,
    pub(crate) metrics: AtomicBool,
    pub(crate) models: Mutex<Vec<&'static str>>,
    pub(crate) token: Mutex<Option<&'static str>>,
    pub(crate) probes: AtomicU32,
    /// Requests in the engine, by its metrics.
    pub(crate) running: AtomicU32,
    pub(crate) kv_event_sources: Mutex<serde_json::Value>,
}

/// A running pod; dropping it closes its port.
#[derive(Debug)]
pub(crate) struct FakeEngine {
    pub(crate) addr: SocketAddr,
    pub(crate) says: Arc<Says>,
    /// Aborts the server when it is dropped.
    _server: JoinSet<()>,
}

impl FakeEngine {
    pub(crate) async fn start(model: &'static str) -> Self {
        let says = Arc::new(Says {
            healthy: true.into(),
            metrics: true.into(),
            models: Mutex::new(vec![model]),
            token: Mutex::default(),
            probes: 0.into(),
            running: 3.into(),
            kv_event_sources: Mutex::new(serde_json::json!({})),
        });
        let app = Router::new()
            .route("/health", get(health))
            .route("/v1/models", get(models))
            .route("/metrics", get(metrics))
            .route("/kv_event_sources", get(kv_event_sources))
            .with_state(Arc::clone(&says));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let addr = listener.local_addr().expect("it is bound");
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, app).await.expect("axum serves until it is aborted");
        });
        Self { addr, says, _server: server }
    }
}

async fn health(State(says): State<Arc<Says>>) -> StatusCode {
    says.probes.fetch_add(1, Ordering::SeqCst);
    let healthy = says.healthy.load(Ordering::SeqCst);
    if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn models(
    State(says): State<Arc<Says>>,
    headers: HeaderMap,
) -> Result<Json<serde_json::Value>, StatusCode> {
    if let Some(token) = *says.token.lock() {
        let given = headers.get("authorization").and_then(|value| value.to_str().ok());
        if given != Some(&format!("Bearer {token}")) {
            return Err(StatusCode::UNAUTHORIZED);
        }
    }
    let card = |id| serde_json::json!({"id": id, "object": "model", "max_model_len": 8192});
    let cards: Vec<_> = says.models.lock().iter().map(card).collect();
    Ok(Json(serde_json::json!({"object": "list", "data": cards})))
}

async fn kv_event_sources(State(says): State<Arc<Says>>) -> Json<serde_json::Value> {
    Json(says.kv_event_sources.lock().clone())
}

async fn metrics(State(says): State<Arc<Says>>) -> (StatusCode, String) {
    if !says.metrics.load(Ordering::SeqCst) {
        return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
    }
    let running = says.running.load(Ordering::SeqCst);
    let text = format!(
        "vllm:num_requests_running{{engine=\"0\"}} {running}.0\n\
        vllm:cache_config_info{{block_size=\"16\",num_gpu_blocks=\"512\"}} 1.0\n"
    );
    (StatusCode::OK, text)
}
