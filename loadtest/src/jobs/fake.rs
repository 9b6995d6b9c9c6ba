//! A scripted gateway with vLLM's shapes, in this process on port 0: it answers exactly what a test
//! expects, from `usage` it computes itself with the arithmetic of one warm pod.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Which pod answers the n-th generation request.
pub(super) type Placement = fn(usize, &HeaderMap) -> usize;

/// The running fake; it ends when dropped.
pub(super) struct Fake {
    pub address: SocketAddr,
    state: Arc<FakeState>,
    task: tokio::task::JoinHandle<()>,
}

struct FakeState {
    placement: Placement,
    status: StatusCode,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Vec<(HeaderMap, Value)>,
    /// Per pod: the prompts it has computed, and its two counters.
    pods: [Pod; 3],
}

#[derive(Default)]
struct Pod {
    prompts: Vec<String>,
    queries: u64,
    hits: u64,
}

// === impl Fake ===

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(super) async fn start(placement: Placement) -> Self {
        Self::answering(placement, StatusCode::OK).await
    }

    /// A fake whose generation requests answer `status`.
    pub(super) async fn answering(placement: Placement, status: StatusCode) -> Self {
        let state = Arc::new(FakeState { placement, status, seen: Mutex::default() });
        let routes = Router::new()
            .route("/health", get(|| async {}))
            .route("/version", get(|| async { r#"{"version":"0.32.0"}"# }))
            .route("/v1/models", get(|| async { r#"{"object":"list","data":[]}"# }))
            .route("/metrics", get(metrics))
            .route("/v1/chat/completions", post(generate))
            .route("/v1/completions", post(generate))
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("the fake serves until aborted");
        });
        Self { address, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Headers and bodies of every generation request so far.
    pub(super) fn requests(&self) -> Vec<(HeaderMap, Value)> {
        self.state.seen.lock().requests.clone()
    }
}

async fn metrics(State(state): State<Arc<FakeState>>) -> String {
    let seen = state.seen.lock();
    let sum = |value: fn(&Pod) -> u64| seen.pods.iter().map(value).sum::<u64>();
    format!(
        "# TYPE vllm:prefix_cache_queries_total counter\n\
         vllm:prefix_cache_queries_total{{engine=\"0\"}} {}.0\n\
         # TYPE vllm:prefix_cache_hits_total counter\n\
         vllm:prefix_cache_hits_total{{engine=\"0\"}} {}.0\n\
         vllm:cache_config_info{{block_size=\"16\",enable_prefix_caching=\"True\",\
         num_gpu_blocks=\"4096\"}} 1.0\n",
        sum(|pod| pod.queries),
        sum(|pod| pod.hits)
    )
}

async fn generate(
    State(state): State<Arc<FakeState>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body: Value = serde_json::from_slice(&body).expect("the client sends JSON");
    if state.status != StatusCode::OK {
        let error = json!({"error": {"message": "no ready pod", "type": "unavailable"}});
        return (state.status, error.to_string()).into_response();
    }
    let is_chat = body.get("messages").is_some();
    let prompt = body.pointer("/messages/0/content").or(body.get("prompt"));
    let prompt = prompt.and_then(Value::as_str).expect("a prompt").to_owned();
    let tokens = token_count(&prompt, is_chat);
    let mut seen = state.seen.lock();
    let index = (state.placement)(seen.requests.len(), &headers);
    seen.requests.push((headers, body.clone()));
    let pod = &mut seen.pods[index];
    let held = if pod.prompts.contains(&prompt) {
        tokens
    } else if pod.prompts.is_empty() || !is_chat {
        0
    } else {
        30
    };
    let cached = (tokens - 1).min(held) / 16 * 16;
    pod.queries += tokens;
    pod.hits += cached;
    pod.prompts.push(prompt);
    let usage = json!({"prompt_tokens": tokens, "completion_tokens": 3, "total_tokens": tokens + 3,
        "prompt_tokens_details": {"cached_tokens": cached}});
    let stream = body.get("stream") == Some(&Value::Bool(true));
    answer(stream, is_chat, usage, index)
}

fn token_count(prompt: &str, is_chat: bool) -> u64 {
    match prompt.len() {
        0..10 => 37,
        10..100 => 45,
        _ if is_chat => 193,
        _ => 159,
    }
}

fn answer(stream: bool, is_chat: bool, usage: Value, pod: usize) -> Response {
    let content = |text: &str| match (is_chat, stream) {
        (true, true) => json!({"index": 0, "delta": {"content": text}}),
        (true, false) => json!({"index": 0, "message": {"role": "assistant", "content": text}}),
        (false, _) => json!({"index": 0, "text": text}),
    };
    let host = format!("10.0.0.{}:8000", pod + 1);
    let headers = [("x-upstream-host", host.as_str()), ("x-request-id", "r-1")];
    if !stream {
        let body = json!({"choices": [content("A cache of prompts")], "usage": usage});
        return (headers, body.to_string()).into_response();
    }
    let mut events = String::new();
    if is_chat {
        let role =
            json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]});
        events.push_str(&format!("data: {role}\n\n"));
    }
    for text in ["A cache", " of", " prompts"] {
        events.push_str(&format!("data: {}\n\n", json!({"choices": [content(text)]})));
    }
    events.push_str(&format!("data: {}\n\n", json!({"choices": [], "usage": usage})));
    events.push_str("data: [DONE]\n\n");
    (headers, [("content-type", "text/event-stream; charset=utf-8")], events).into_response()
}
