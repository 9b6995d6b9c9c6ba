//! `POST /tokenize` and `/detokenize`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::simulator::{
    body::{self, Body},
    errors::ApiError,
    pod::Pod,
};

pub(crate) async fn tokenize(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::parse(&headers, &bytes)?;
    pod.model(&body)?;
    let tokens = match body.text("prompt")? {
        Some(text) if body.get("add_special_tokens") == Some(&Value::Bool(false)) => {
            pod.tokenizer.encode(text)?
        }
        Some(text) => pod.tokenizer.encode_with_specials(text)?,
        None => pod.chat_tokens(&body)?,
    };
    let spelled = || tokens.iter().map(|id| pod.tokenizer.token(*id)).collect::<Vec<_>>();
    let strings = body.flag("return_token_strs")?.then(spelled);
    Ok(Json(json!({
        "count": tokens.len(), "max_model_len": pod.config.context_tokens(), "tokens": tokens,
        "token_strs": strings,
    }))
    .into_response())
}

pub(crate) async fn detokenize(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::parse(&headers, &bytes)?;
    pod.model(&body)?;
    let Some(list) = body.list("tokens")? else {
        return Err(ApiError::field_type("tokens", "missing", "Field required", &Value::Null));
    };
    let ids: Vec<u32> = list.iter().filter_map(body::token_id).collect();
    Ok(Json(json!({"prompt": pod.tokenizer.decode(&ids)?})).into_response())
}
