//! `POST /v1/chat/completions`.

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
    logprobs::Logprobs,
    pod::{FINGERPRINT, Pod, Usage, check_rank, request_id, unix_s},
    sse::{self, Wire},
    tools::ToolCall,
    transfer::Transfer,
};

/// A chat stream in vLLM's chunks.
struct ChatStream {
    id: String,
    created: u64,
    model: String,
    sampling: Sampling,
    prompt_ids: Option<Arc<[u32]>>,
    usage: Usage,
    begun: bool,
    extras: Extras,
    /// Choices whose call of a tool has been named.
    called: Vec<bool>,
}

/// What a choice has beside its text, or instead of it.
struct Extras {
    logprobs: Option<Logprobs>,
    tool: Option<ToolCall>,
}

pub(crate) async fn create(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::parse(&headers, &bytes)?;
    let model = pod.model(&body)?;
    let mut sampling = body.sampling()?;
    let tokens = pod.chat_tokens(&body)?;
    let wish = body.count("max_completion_tokens")?.or(body.count("max_tokens")?);
    let max_tokens = body::limit(wish, tokens.len(), pod.config.context_tokens())
        .map_err(|error| pod.refused(&body, error))?;
    sampling.prompt.cache_salt = pod.salt(&model, &sampling.prompt.cache_salt);
    let extras =
        Extras { logprobs: Logprobs::of(&pod, sampling.logprobs), tool: ToolCall::of(&body)? };
    if let Some(tool) = &extras.tool {
        sampling.prompt.script = pod.tokenizer.encode(&tool.arguments)?.into();
    }
    let id = request_id("chatcmpl-", &headers);
    check_rank(&headers)?;
    let transfer = pod.transfer(&body, &id)?;
    let generation = Generation::start(&pod, &sampling, &transfer, vec![(tokens, max_tokens)])?;
    if sampling.stream {
        let prompt_ids = sampling.return_token_ids.then(|| generation.prompts[0].clone());
        let usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
        let created = unix_s();
        let (begun, called) = (false, vec![false; sampling.n]);
        let wire =
            ChatStream { id, created, model, sampling, prompt_ids, usage, begun, extras, called };
        return Ok(sse::response(generation.events, wire));
    }
    whole(&pod, (id, &model), (&sampling, &extras), &transfer, generation).await
}

async fn whole(
    pod: &Pod,
    (id, model): (String, &str),
    (sampling, extras): (&Sampling, &Extras),
    transfer: &Transfer,
    mut generation: Generation,
) -> Result<Response, ApiError> {
    let created = unix_s();
    let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
    let mut choices: Vec<(String, Vec<u32>, Option<End>)> = vec![Default::default(); sampling.n];
    while let Some(event) = generation.events.next().await {
        usage.completion_tokens += event.token_ids.len();
        usage.cached_tokens = event.cached_tokens;
        let choice = &mut choices[event.choice];
        choice.0.push_str(&event.text);
        choice.1.extend(event.token_ids);
        choice.2 = event.end;
    }
    let mut listed = Vec::new();
    for (index, (text, ids, end)) in choices.into_iter().enumerate() {
        let end = End::good(end)?;
        listed.push(json!({
            "index": index,
            "message": extras.message(&text),
            "logprobs": extras.logprobs.as_ref().map(|it| it.chat(&ids)),
            "finish_reason": extras.reason(&end),
            "stop_reason": end.stop_reason(),
            "token_ids": sampling.return_token_ids.then_some(ids),
            "routed_experts": null,
        }));
    }
    let prompt_ids = sampling.return_token_ids.then(|| generation.prompts[0].to_vec());
    let params = pod.transfer_params(transfer, usage.prompt_tokens, usage.cached_tokens);
    let response = json!({
        "id": id, "object": "chat.completion", "created": created, "model": model,
        "choices": listed, "service_tier": null, "system_fingerprint": FINGERPRINT,
        "usage": usage.whole(pod.config.engine.block_size),
        "prompt_logprobs": null, "prompt_token_ids": prompt_ids, "prompt_text": null,
        "kv_transfer_params": params, "ec_transfer_params": null, "metrics": null,
    });
    Ok(Json(response).into_response())
}

// === impl Extras ===

impl Extras {
    /// The message of a whole answer: its text, or a call with that as its arguments.
    fn message(&self, text: &str) -> Value {
        let content = if self.tool.is_some() { "" } else { text };
        let mut message = json!({
            "role": "assistant", "content": content, "refusal": null, "annotations": null,
            "audio": null, "function_call": null,
        });
        if let Some(tool) = &self.tool {
            message["tool_calls"] = tool.whole(text);
        }
        message["reasoning"] = Value::Null;
        message
    }

    fn delta(&self, text: &str, is_first: bool) -> Value {
        let said = || json!({"content": text});
        self.tool.as_ref().map_or_else(said, |tool| tool.delta(text, is_first))
    }

    fn reason(&self, end: &End) -> &'static str {
        self.tool.as_ref().map_or_else(|| end.reason(), |tool| tool.reason(end))
    }
}

// === impl ChatStream ===

impl ChatStream {
    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices,
        })
    }

    fn with_usage(&self, mut chunk: Value) -> Value {
        if self.sampling.continuous_usage {
            chunk["usage"] = self.usage.running();
        }
        chunk
    }

    /// The role chunks come with the first token, not with the head.
    fn begin(&self, out: &mut String) {
        for index in 0..self.sampling.n {
            let mut chunk = self.with_usage(self.chunk(json!([{
                "index": index, "delta": {"role": "assistant", "content": ""},
                "logprobs": null, "finish_reason": null,
            }])));
            chunk["prompt_token_ids"] = json!(self.prompt_ids.as_deref());
            chunk["prompt_text"] = Value::Null;
            sse::data(out, &chunk);
        }
    }
}

impl Wire for ChatStream {
    fn event(&mut self, event: &Event, out: &mut String) {
        self.usage.cached_tokens = event.cached_tokens;
        if !self.begun {
            self.begun = true;
            self.begin(out);
        }
        self.usage.completion_tokens += event.token_ids.len();
        let is_first = !std::mem::replace(&mut self.called[event.choice], true);
        let logprobs = self.extras.logprobs.as_ref().map(|it| it.chat(&event.token_ids));
        let mut choice = json!({
            "index": event.choice, "delta": self.extras.delta(&event.text, is_first),
            "logprobs": logprobs,
            "finish_reason": event.end.as_ref().map(|end| self.extras.reason(end)),
        });
        if let Some(end) = &event.end {
            choice["stop_reason"] = end.stop_reason();
        }
        choice["token_ids"] = json!(self.sampling.return_token_ids.then_some(&event.token_ids));
        sse::data(out, &self.with_usage(self.chunk(json!([choice]))));
    }

    fn end(&mut self, out: &mut String) {
        if self.sampling.include_usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = self.usage.last();
            chunk["system_fingerprint"] = FINGERPRINT.into();
            sse::data(out, &chunk);
        }
        sse::done(out);
    }
}
