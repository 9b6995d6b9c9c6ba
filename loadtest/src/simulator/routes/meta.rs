//! The pod about itself: models, health, version, load, metrics, KV event sources.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::simulator::{fault::Fault, metrics, pod::Pod};

/// The version whose wire format this is.
const VERSION: &str = "0.32.0";

pub(crate) async fn models(State(pod): State<Arc<Pod>>) -> Json<Value> {
    let served = pod.served();
    let (base, loras) = served.split_first().expect("the base model is always served");
    let card = |id: &str, root: &str, parent: Value, max_model_len: Value| {
        json!({
            "id": id, "object": "model", "created": pod.started, "owned_by": "vllm",
            "root": root, "parent": parent, "max_model_len": max_model_len,
            "permission": [{
                "id": format!("modelperm-{:016x}", pod.started), "object": "model_permission",
                "created": pod.started, "allow_create_engine": false, "allow_sampling": true,
                "allow_logprobs": true, "allow_search_indices": false, "allow_view": true,
                "allow_fine_tuning": false, "organization": "*", "group": null,
                "is_blocking": false,
            }],
        })
    };
    let length = pod.config.context_tokens().into();
    let adapters = loras
        .iter()
        .map(|id| card(id, &format!("/adapters/{id}"), base.as_str().into(), Value::Null));
    let data: Vec<Value> =
        std::iter::once(card(base, base, Value::Null, length)).chain(adapters).collect();
    Json(json!({"object": "list", "data": data}))
}

/// 200 and empty, also while draining, paused or asleep; 503 when the engine is dead.
pub(crate) async fn health(State(pod): State<Arc<Pod>>) -> StatusCode {
    match pod.faults.now() {
        Some(Fault::EngineDeath { .. }) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": VERSION}))
}

pub(crate) async fn load(State(pod): State<Arc<Pod>>) -> Json<Value> {
    let reading = pod.driver.reading();
    let load = pod.driver.with_engine(|engine| engine.running() + engine.waiting() + reading);
    Json(json!({"server_load": load}))
}

/// Where the KV events of each data-parallel rank are: one rank, or none.
pub(crate) async fn kv_event_sources(State(pod): State<Arc<Pod>>) -> Json<Value> {
    Json(pod.publisher.as_ref().map_or_else(|| json!({}), |it| json!({"0": it.source()})))
}

pub(crate) async fn metrics(State(pod): State<Arc<Pod>>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    let reading = pod.driver.reading();
    let page = pod.driver.with_engine(|engine| metrics::page(engine, &pod.config, reading));
    ([(CONTENT_TYPE, content_type)], page + &pod.http.page()).into_response()
}
