//! `POST /v1/embeddings`: a prefill whose answer is a small deterministic vector.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::simulator::{
    body::Body,
    errors::ApiError,
    generation::Generation,
    pod::{Pod, request_id, unix_s},
    transfer::Transfer,
};

/// Numbers per vector.
const DIMENSIONS: usize = 16;

pub(crate) async fn create(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::parse(&headers, &bytes)?;
    let model = pod.model(&body)?;
    let mut sampling = body.sampling()?;
    sampling.n = 1;
    let texts: Vec<&str> = match body.get("input") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => return Err(ApiError::field_type("input", "missing", "Field required", &Value::Null)),
    };
    let mut prompts = Vec::new();
    for text in &texts {
        prompts.push((pod.tokenizer.encode_with_specials(text)?, 0));
    }
    if prompts.is_empty() || prompts.iter().any(|(tokens, _)| tokens.is_empty()) {
        return Err(ApiError::bad("input must be text that is not empty."));
    }
    let mut generation = Generation::start(&pod, &sampling, &Transfer::default(), prompts)?;
    while generation.events.next().await.is_some() {}
    let data: Vec<Value> = (0..)
        .zip(&generation.prompts)
        .map(|(index, tokens): (usize, _)| {
            json!({"index": index, "object": "embedding", "embedding": vector(tokens)})
        })
        .collect();
    let tokens = generation.prompt_tokens;
    let usage = json!({
        "prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0,
        "prompt_tokens_details": null,
    });
    let id = request_id("embd-", &headers);
    Ok(Json(json!({
        "id": id, "object": "list", "created": unix_s(), "model": model, "data": data,
        "usage": usage,
    }))
    .into_response())
}

/// A unit vector that depends on which tokens there are.
fn vector(tokens: &[u32]) -> Vec<f64> {
    let mut sums = vec![1e-6; DIMENSIONS];
    for token in tokens {
        sums[*token as usize % DIMENSIONS] += 1.0;
    }
    let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
    sums.into_iter().map(|sum| sum / length).collect()
}
