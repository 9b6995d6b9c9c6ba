//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's API, as vLLM serves it.

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
    body::{self, Body, Sampling},
    errors::ApiError,
    generation::{End, Event, Generation},
    pod::{Pod, Usage, check_rank, request_id},
    sse::{self, Wire},
};

/// A message stream: Anthropic's named events.
struct MessageStream {
    id: String,
    model: String,
    usage: Usage,
    begun: bool,
    end: Option<End>,
}

pub(crate) async fn create(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    answer(&pod, &headers, &bytes).await.unwrap_or_else(|error| error.anthropic())
}

pub(crate) async fn count_tokens(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let count = || -> Result<usize, ApiError> {
        let body = Body::parse(&headers, &bytes)?;
        pod.model(&body)?;
        Ok(pod.message_tokens(&chat(&body)?)?.len())
    };
    match count() {
        Ok(count) => Json(json!({"input_tokens": count})).into_response(),
        Err(error) => error.anthropic(),
    }
}

async fn answer(pod: &Arc<Pod>, headers: &HeaderMap, bytes: &Bytes) -> Result<Response, ApiError> {
    let body = Body::parse(headers, bytes)?;
    let model = pod.model(&body)?;
    let mut sampling = Sampling { n: 1, ..body.sampling()? };
    let tokens = pod.message_tokens(&chat(&body)?)?;
    let wish = body.count("max_tokens")?;
    let max_tokens = body::limit(wish, tokens.len(), pod.config.context_tokens())?;
    sampling.prompt.cache_salt = pod.salt(&model, &sampling.prompt.cache_salt);
    if let Some(stops) = body.list("stop_sequences")? {
        sampling.stop = stops.iter().filter_map(|stop| stop.as_str().map(str::to_owned)).collect();
    }
    let id = request_id("chatcmpl-", headers);
    check_rank(headers)?;
    let transfer = pod.transfer(&body, &id)?;
    let mut generation = Generation::start(pod, &sampling, &transfer, vec![(tokens, max_tokens)])?;
    let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
    if sampling.stream {
        let wire = MessageStream { id, model, usage, begun: false, end: None };
        return Ok(sse::response(generation.events, wire));
    }
    let (mut text, mut end) = (String::new(), None);
    while let Some(event) = generation.events.next().await {
        usage.completion_tokens += event.token_ids.len();
        usage.cached_tokens = event.cached_tokens;
        text.push_str(&event.text);
        end = event.end;
    }
    let end = End::good(end)?;
    let params = pod.transfer_params(&transfer, usage.prompt_tokens, usage.cached_tokens);
    let mut response = json!({
        "id": id, "type": "message", "role": "assistant",
        "content": [{"type": "text", "text": text}], "model": model,
        "stop_reason": stop_reason(&end),
        "usage": {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens},
    });
    if !params.is_null() {
        response["kv_transfer_params"] = params;
    }
    Ok(Json(response).into_response())
}

/// The request as an OpenAI chat: `system` becomes the first message.
fn chat(body: &Body) -> Result<Value, ApiError> {
    let Some(given) = body.list("messages")? else {
        return Err(ApiError::field_type("messages", "missing", "Field required", &Value::Null));
    };
    let system = body.get("system").map(|text| json!({"role": "system", "content": text}));
    let messages: Vec<Value> = system.into_iter().chain(given.iter().cloned()).collect();
    Ok(json!({"messages": messages}))
}

fn stop_reason(end: &End) -> &'static str {
    match end {
        End::Length => "max_tokens",
        End::Text(_) => "stop_sequence",
        _ => "end_turn",
    }
}

impl Wire for MessageStream {
    fn event(&mut self, event: &Event, out: &mut String) {
        if !self.begun {
            self.begun = true;
            sse::named(
                out,
                &json!({"type": "message_start", "message": {
                    "id": self.id, "type": "message", "role": "assistant", "content": [],
                    "model": self.model,
                    "usage": {"input_tokens": self.usage.prompt_tokens, "output_tokens": 0},
                }}),
            );
            let block = json!({"type": "text", "text": ""});
            sse::named(
                out,
                &json!({"type": "content_block_start", "index": 0, "content_block": block}),
            );
        }
        self.usage.completion_tokens += event.token_ids.len();
        self.end.clone_from(&event.end);
        if !event.text.is_empty() {
            let delta = json!({"type": "text_delta", "text": event.text});
            sse::named(out, &json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        }
    }

    fn end(&mut self, out: &mut String) {
        let usage = json!({
            "input_tokens": self.usage.prompt_tokens,
            "output_tokens": self.usage.completion_tokens,
        });
        let reason = self.end.as_ref().map(stop_reason);
        sse::named(out, &json!({"type": "content_block_stop", "index": 0}));
        sse::named(
            out,
            &json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}),
        );
        sse::named(out, &json!({"type": "message_stop"}));
        sse::done(out);
    }
}
