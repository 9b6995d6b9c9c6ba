//! The route table, and what every request meets on its way to it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State},
    http::{
        HeaderValue, Method, StatusCode,
        header::{SERVER, VARY},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde_json::{Value, json};

use super::{
    errors::ApiError,
    http_metrics::{NOT_COUNTED, Timed},
    listener::Control,
    pod::Pod,
    recorder::Recorded,
    routes::{admin, chat, completions, embeddings, messages, meta, responses, tokens},
};

/// The largest body, in bytes. vLLM itself has no limit.
const MAX_BODY_BYTES: usize = 256 << 20;

/// Paths that pollers ask all the time and the record would drown in.
const NOT_RECORDED: &[&str] = &["/metrics", "/health", "/ping", "/load", "/kv_event_sources"];

/// An answer that is being counted. It knows its length as before: with none, a plain answer would
/// leave chunked, and vLLM's have a `content-length`.
struct Counted {
    body: Body,
    _until_the_last_byte: Timed,
}

pub(super) fn router(pod: Arc<Pod>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/chat/completions/render", post(tokens::render_chat))
        .route("/v1/completions", post(completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count_tokens))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/v1/models", get(meta::models))
        .route("/health", get(meta::health))
        .route("/ping", get(meta::health).post(meta::health))
        .route("/version", get(meta::version))
        .route("/load", get(meta::load))
        .route("/metrics", get(meta::metrics))
        .route("/kv_event_sources", get(meta::kv_event_sources))
        .route("/reset_prefix_cache", post(admin::reset_prefix_cache))
        .route("/sim/kv_events", post(admin::kv_events))
        .route("/sim/fault", post(admin::set_fault).delete(admin::clear_fault))
        .route("/sim/requests", get(admin::requests))
        .route("/sim/reset_cache", post(admin::reset_cache))
        .fallback(|| async { detail(StatusCode::NOT_FOUND, "Not Found") })
        .method_not_allowed_fallback(|| async {
            detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
        })
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(pod.clone(), intake))
        .with_state(pod)
}

/// FastAPI's error shape.
fn detail(status: StatusCode, text: &str) -> (StatusCode, Json<Value>) {
    (status, Json(json!({"detail": text})))
}

/// Reads the body, records the request, applies faults, and signs as uvicorn does.
async fn intake(
    State(pod): State<Arc<Pod>>,
    ConnectInfo(connection): ConnectInfo<Control>,
    request: Request,
    next: Next,
) -> Response {
    let admin = request.uri().path().starts_with("/sim/");
    connection.begin(!admin);
    let mut response =
        if admin { next.run(request).await } else { serve(&pod, request, next).await };
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("uvicorn"));
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    response
}

async fn serve(pod: &Arc<Pod>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let handler = request.extensions().get::<MatchedPath>().cloned();
    let (method, asked) = (request.method().clone(), request.headers().clone());
    let is_counted = !NOT_COUNTED.contains(&request.uri().path());
    let response = answer(pod, request, next).await;
    if !is_counted {
        return response;
    }
    let what = (handler.as_ref().map(MatchedPath::as_str), method);
    let timed = Timed::new(pod, what, &asked, &response, began);
    response.map(|body| Body::new(Counted { body, _until_the_last_byte: timed }))
}

async fn answer(pod: &Pod, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, MAX_BODY_BYTES).await else {
        return ApiError::bad("There was an error parsing the body").into_response();
    };
    if !NOT_RECORDED.contains(&parts.uri.path()) {
        pod.recorder.record(Recorded {
            method: parts.method.to_string(),
            path: parts.uri.to_string(),
            headers: parts.headers.clone(),
            body: bytes.clone(),
        });
    }
    if parts.method == Method::POST
        && let Err(error) = pod.faults.meet_post().await
    {
        return error.into_response();
    }
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

// === impl Counted ===

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
