//! `/sim/…`: what tests do to a pod from outside. Not part of vLLM.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::simulator::{
    fault::{Fault, KvFault},
    pod::Pod,
    recorder::Recorded,
};

/// `POST /sim/fault`: the fault to show from now on.
pub(crate) async fn set_fault(State(pod): State<Arc<Pod>>, bytes: Bytes) -> Response {
    match serde_json::from_slice::<Fault>(&bytes) {
        Ok(fault) => {
            pod.faults.set(Some(fault));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": error.to_string()}))).into_response()
        }
    }
}

/// `DELETE /sim/fault`: sound again.
pub(crate) async fn clear_fault(State(pod): State<Arc<Pod>>) -> StatusCode {
    pod.faults.set(None);
    StatusCode::NO_CONTENT
}

/// `GET /sim/requests`: the last requests as they arrived, oldest first.
pub(crate) async fn requests(State(pod): State<Arc<Pod>>) -> Json<Value> {
    let all: Vec<Value> = pod.recorder.all().iter().map(Recorded::json).collect();
    Json(json!({"requests": all}))
}

/// `POST /sim/kv_events`: something happens to the KV events.
pub(crate) async fn kv_events(State(pod): State<Arc<Pod>>, bytes: Bytes) -> Response {
    match serde_json::from_slice::<KvFault>(&bytes) {
        Ok(fault) => {
            pod.kv_fault(fault).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => {
            (StatusCode::BAD_REQUEST, Json(json!({"error": error.to_string()}))).into_response()
        }
    }
}

/// `POST /reset_prefix_cache`, as vLLM has it in its development mode. The event about it comes
/// with the next step.
pub(crate) async fn reset_prefix_cache(State(pod): State<Arc<Pod>>) {
    pod.driver.with_engine(|engine| engine.clear_cache());
}

/// `POST /sim/reset_cache`: forget every cached block that is not in use.
pub(crate) async fn reset_cache(State(pod): State<Arc<Pod>>) -> StatusCode {
    pod.driver.with_engine(|engine| engine.clear_cache());
    StatusCode::NO_CONTENT
}
