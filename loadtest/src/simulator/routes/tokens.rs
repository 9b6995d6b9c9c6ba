//! `POST /tokenize`, `/detokenize`, and what renders a chat for others.

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
    pod::{Pod, request_id},
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

/// `/v1/chat/completions/render`: the ids with which the engine would be asked.
pub(crate) async fn render_chat(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    if !pod.config.scale_out {
        let how = "Restart vllm serve with --enable-scale-out to enable them.";
        return Err(ApiError::forbidden(format!("Scale-out endpoints are disabled. {how}")));
    }
    let body = Body::parse(&headers, &bytes)?;
    let model = pod.model(&body)?;
    let tokens = pod.chat_tokens(&body)?;
    let number = |field: &str, default: f64| -> Result<f64, ApiError> {
        Ok(body.number(field)?.unwrap_or(default))
    };
    let wish = body.count("max_completion_tokens")?.or(body.count("max_tokens")?);
    let max_tokens = body::limit(wish, tokens.len(), pod.config.context_tokens())?;
    let sampling = body.sampling()?;
    Ok(Json(json!({
        "request_id": request_id("chatcmpl-", &headers), "token_ids": tokens,
        "token_offsets": null, "features": null, "content_parts": null,
        "sampling_params": {
            "presence_penalty": number("presence_penalty", 0.0)?,
            "frequency_penalty": number("frequency_penalty", 0.0)?,
            "repetition_penalty": number("repetition_penalty", 1.0)?,
            "temperature": number("temperature", 1.0)?,
            "stop": sampling.stop, "stop_token_ids": sampling.prompt.stop_token_ids,
            "max_tokens": max_tokens, "output_kind": 2, "skip_clone": true, "bad_words": [],
            "skip_reading_prefix_cache": false,
        },
        "model": model, "reasoning_ended": null, "reasoning_parser_kwargs": null,
        "return_token_ids": null, "output_mode": "tokens", "stream": sampling.stream,
        "stream_options": null, "cache_salt": body.text("cache_salt")?, "priority": 0,
        "kv_transfer_params": null, "ec_transfer_params": null,
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
