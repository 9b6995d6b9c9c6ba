//! `POST /v1/responses`, stateless: nothing is stored, so `previous_response_id` is a 404.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::simulator::{
    body::{self, Body, Sampling},
    errors::ApiError,
    generation::{End, Event, Generation},
    pod::{Pod, Usage, check_rank, request_id, unix_s},
    sse::{self, Wire},
};

/// What a response object says besides its output.
struct Header {
    id: String,
    created: u64,
    model: String,
    message_id: String,
    instructions: Value,
    temperature: f64,
    top_p: f64,
    max_output_tokens: usize,
}

/// A response stream: OpenAI's named events.
struct ResponseStream {
    header: Header,
    usage: Usage,
    text: String,
    sequence: u64,
    end: Option<End>,
}

pub(crate) async fn create(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::parse(&headers, &bytes)?;
    let model = pod.model(&body)?;
    if let Some(previous) = body.text("previous_response_id")? {
        return Err(ApiError {
            status: StatusCode::NOT_FOUND,
            kind: "invalid_request_error",
            message: format!("Response with id '{previous}' not found."),
            param: Some("response_id".to_owned()),
        });
    }
    let mut sampling = Sampling { n: 1, ..body.sampling()? };
    let tokens = pod.message_tokens(&json!({"messages": messages(&body)?}))?;
    let wish = body.count("max_output_tokens")?;
    let max_tokens = body::limit(wish, tokens.len(), pod.config.context_tokens())?;
    sampling.prompt.cache_salt = pod.salt(&model, &sampling.prompt.cache_salt);
    let id = request_id("resp_", &headers);
    check_rank(&headers)?;
    let transfer = pod.transfer(&body, &id)?;
    let generation = Generation::start(&pod, &sampling, &transfer, vec![(tokens, max_tokens)])?;
    let header = Header {
        id,
        created: unix_s(),
        model,
        message_id: format!("msg_{:016x}", rand::random::<u64>()),
        instructions: body.get("instructions").cloned().unwrap_or_default(),
        temperature: body.number("temperature")?.unwrap_or(1.0),
        top_p: body.number("top_p")?.unwrap_or(1.0),
        max_output_tokens: max_tokens,
    };
    let usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
    let mut wire = ResponseStream { header, usage, text: String::new(), sequence: 0, end: None };
    if sampling.stream {
        return Ok(sse::response(generation.events, wire));
    }
    let mut events = generation.events;
    while let Some(event) = events.next().await {
        wire.take(&event);
    }
    End::good(wire.end.clone())?;
    let Usage { prompt_tokens, cached_tokens, .. } = wire.usage;
    let mut response = wire.response("");
    response["kv_transfer_params"] = pod.transfer_params(&transfer, prompt_tokens, cached_tokens);
    Ok(Json(response).into_response())
}

/// `input` (text, or items with text) and `instructions` as chat messages.
fn messages(body: &Body) -> Result<Vec<Value>, ApiError> {
    let mut messages = Vec::new();
    if let Some(instructions) = body.text("instructions")? {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match body.get("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => {
            let item = |item: &Value| json!({"role": item["role"], "content": item["content"]});
            messages.extend(items.iter().map(item));
        }
        _ => return Err(ApiError::field_type("input", "missing", "Field required", &Value::Null)),
    }
    Ok(messages)
}

// === impl ResponseStream ===

impl ResponseStream {
    fn take(&mut self, event: &Event) {
        self.usage.completion_tokens += event.token_ids.len();
        self.usage.cached_tokens = event.cached_tokens;
        self.text.push_str(&event.text);
        self.end.clone_from(&event.end);
    }

    /// The response object; an empty `status` means that of the finished response.
    fn response(&self, status: &str) -> Value {
        let header = &self.header;
        let finished = status.is_empty();
        let cut = finished && self.end == Some(End::Length);
        let status = match (finished, cut) {
            (false, _) => status,
            (true, true) => "incomplete",
            (true, false) => "completed",
        };
        let output = if finished { vec![self.item("completed")] } else { Vec::new() };
        json!({
            "id": header.id, "created_at": header.created,
            "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": header.instructions, "metadata": null, "model": header.model,
            "object": "response", "output": output, "parallel_tool_calls": true,
            "temperature": header.temperature, "tool_choice": "none", "tools": [],
            "top_p": header.top_p, "background": false,
            "max_output_tokens": header.max_output_tokens, "max_tool_calls": null,
            "previous_response_id": null, "prompt": null, "reasoning": null,
            "service_tier": "auto", "status": status, "text": null, "top_logprobs": null,
            "truncation": "disabled", "usage": finished.then(|| self.usage()), "user": null,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "kv_transfer_params": null,
            "ec_transfer_params": null, "input_messages": null, "output_messages": null,
        })
    }

    fn usage(&self) -> Value {
        let Usage { prompt_tokens, completion_tokens, cached_tokens } = self.usage;
        json!({
            "input_tokens": prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": cached_tokens, "cache_write_tokens": 0,
                "input_tokens_per_turn": [], "cached_tokens_per_turn": [],
            },
            "output_tokens": completion_tokens,
            "output_tokens_details": {
                "reasoning_tokens": 0, "tool_output_tokens": 0,
                "output_tokens_per_turn": [], "tool_output_tokens_per_turn": [],
            },
            "total_tokens": prompt_tokens + completion_tokens,
        })
    }

    fn part(&self) -> Value {
        json!({"annotations": [], "text": self.text, "type": "output_text", "logprobs": null})
    }

    fn item(&self, status: &str) -> Value {
        let content = if status == "completed" { vec![self.part()] } else { Vec::new() };
        json!({
            "id": self.header.message_id, "content": content, "role": "assistant",
            "status": status, "type": "message", "phase": null,
        })
    }

    fn send(&mut self, out: &mut String, kind: &str, mut fields: Value) {
        fields["type"] = kind.into();
        fields["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        sse::named(out, &fields);
    }

    /// The place of the one output text, which most events repeat.
    fn place(&self) -> Value {
        json!({"item_id": self.header.message_id, "output_index": 0, "content_index": 0})
    }

    fn begin(&mut self, out: &mut String) {
        let response = self.response("in_progress");
        self.send(out, "response.created", json!({"response": response}));
        self.send(out, "response.in_progress", json!({"response": response}));
        let item = self.item("in_progress");
        self.send(out, "response.output_item.added", json!({"output_index": 0, "item": item}));
        let mut part = self.place();
        part["part"] = self.part();
        self.send(out, "response.content_part.added", part);
    }
}

impl Wire for ResponseStream {
    fn event(&mut self, event: &Event, out: &mut String) {
        if self.sequence == 0 {
            self.begin(out);
        }
        self.take(event);
        if !event.text.is_empty() {
            let mut delta = self.place();
            delta["delta"] = event.text.as_str().into();
            delta["logprobs"] = json!([]);
            self.send(out, "response.output_text.delta", delta);
        }
    }

    fn end(&mut self, out: &mut String) {
        let mut done = self.place();
        done["text"] = self.text.as_str().into();
        done["logprobs"] = json!([]);
        self.send(out, "response.output_text.done", done);
        let mut part = self.place();
        part["part"] = self.part();
        self.send(out, "response.content_part.done", part);
        let item = self.item("completed");
        self.send(out, "response.output_item.done", json!({"output_index": 0, "item": item}));
        let response = self.response("");
        self.send(out, "response.completed", json!({"response": response}));
    }
}
