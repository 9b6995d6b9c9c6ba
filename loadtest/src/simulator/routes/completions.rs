//! `POST /v1/completions`.

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
    transfer::Transfer,
};

/// OpenAI's default output limit here (chat has none).
const DEFAULT_MAX_TOKENS: usize = 16;

/// A completion stream in vLLM's chunks.
struct CompletionStream {
    id: String,
    created: u64,
    model: String,
    sampling: Sampling,
    prompts: Vec<Arc<[u32]>>,
    usage: Usage,
    /// Choices that have shown their prompt ids.
    begun: Vec<bool>,
    logprobs: Option<Logprobs>,
    /// How long each choice's text is, in characters.
    offsets: Vec<usize>,
}

pub(crate) async fn create(
    State(pod): State<Arc<Pod>>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::parse(&headers, &bytes)?;
    let model = pod.model(&body)?;
    let mut sampling = body.sampling()?;
    let wish = body.count("max_tokens")?.or(Some(DEFAULT_MAX_TOKENS));
    let mut prompts = Vec::new();
    for tokens in prompt_tokens(&pod, &body)? {
        let max_tokens = body::limit(wish, tokens.len(), pod.config.context_tokens())
            .map_err(|error| pod.refused(&body, error))?;
        prompts.push((tokens, max_tokens));
    }
    sampling.prompt.cache_salt = pod.salt(&model, &sampling.prompt.cache_salt);
    sampling.prompt.is_text = body.get("prompt").is_some_and(Value::is_string);
    let logprobs = Logprobs::of(&pod, sampling.logprobs);
    let id = request_id("cmpl-", &headers);
    check_rank(&headers)?;
    let transfer = pod.transfer(&body, &id)?;
    let generation = Generation::start(&pod, &sampling, &transfer, prompts)?;
    if sampling.stream {
        let usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
        let choices = generation.prompts.len() * sampling.n;
        let wire = CompletionStream {
            id,
            created: unix_s(),
            model,
            sampling,
            prompts: generation.prompts,
            usage,
            begun: vec![false; choices],
            logprobs,
            offsets: vec![0; choices],
        };
        return Ok(sse::response(generation.events, wire));
    }
    whole(&pod, (id, &model), (&sampling, logprobs.as_ref()), &transfer, generation).await
}

/// A string, a list of strings, a list of ids, or a list of lists of ids.
fn prompt_tokens(pod: &Pod, body: &Body) -> Result<Vec<Vec<u32>>, ApiError> {
    let missing =
        || ApiError::bad("Either prompt or prompt_embeds must be provided and non-empty.");
    let text = |text: &str| pod.tokenizer.encode_with_specials(text);
    let ids = |list: &[Value]| list.iter().map(body::token_id).collect::<Option<Vec<u32>>>();
    let prompts = match body.get("prompt") {
        Some(Value::String(one)) => vec![text(one)?],
        Some(Value::Array(list)) if list.first().is_some_and(Value::is_number) => {
            vec![ids(list).ok_or_else(missing)?]
        }
        Some(Value::Array(list)) => {
            let mut prompts = Vec::new();
            for item in list {
                prompts.push(match item {
                    Value::String(one) => text(one)?,
                    Value::Array(one) => ids(one).ok_or_else(missing)?,
                    _ => return Err(missing()),
                });
            }
            prompts
        }
        _ => return Err(missing()),
    };
    if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        return Err(missing());
    }
    Ok(prompts)
}

async fn whole(
    pod: &Pod,
    (id, model): (String, &str),
    (sampling, logprobs): (&Sampling, Option<&Logprobs>),
    transfer: &Transfer,
    mut generation: Generation,
) -> Result<Response, ApiError> {
    let created = unix_s();
    let mut usage = Usage { prompt_tokens: generation.prompt_tokens, ..Usage::default() };
    let count = generation.prompts.len() * generation.n;
    let mut choices: Vec<(String, Vec<u32>, Option<End>)> = vec![Default::default(); count];
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
        let prompt = generation.prompts[index / generation.n].to_vec();
        listed.push(json!({
            "index": index, "text": text,
            "logprobs": logprobs.map(|it| it.completion(&ids, &mut 0)),
            "finish_reason": end.reason(), "stop_reason": end.stop_reason(),
            "token_ids": sampling.return_token_ids.then_some(ids), "prompt_logprobs": null,
            "prompt_token_ids": sampling.return_token_ids.then_some(prompt),
            "routed_experts": null,
        }));
    }
    let params = pod.transfer_params(transfer, usage.prompt_tokens, usage.cached_tokens);
    let response = json!({
        "id": id, "object": "text_completion", "created": created, "model": model,
        "choices": listed, "service_tier": null, "system_fingerprint": FINGERPRINT,
        "usage": usage.whole(pod.config.engine.block_size),
        "kv_transfer_params": params, "ec_transfer_params": null, "metrics": null,
    });
    Ok(Json(response).into_response())
}

// === impl CompletionStream ===

impl CompletionStream {
    fn chunk(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created,
            "model": self.model, "choices": choices,
        })
    }
}

impl Wire for CompletionStream {
    fn event(&mut self, event: &Event, out: &mut String) {
        self.usage.completion_tokens += event.token_ids.len();
        self.usage.cached_tokens = event.cached_tokens;
        let ids = self.sampling.return_token_ids;
        let first = !std::mem::replace(&mut self.begun[event.choice], true);
        let prompt = &self.prompts[event.choice / self.sampling.n];
        let offset = &mut self.offsets[event.choice];
        let logprobs = self.logprobs.as_ref().map(|it| it.completion(&event.token_ids, offset));
        let mut chunk = self.chunk(json!([{
            "index": event.choice, "text": event.text, "logprobs": logprobs,
            "finish_reason": event.end.as_ref().map(End::reason),
            "stop_reason": event.end.as_ref().map_or(Value::Null, End::stop_reason),
            "prompt_token_ids": (ids && first).then(|| prompt.to_vec()),
            "token_ids": ids.then_some(&event.token_ids),
        }]));
        if self.sampling.continuous_usage {
            chunk["usage"] = self.usage.running();
        }
        sse::data(out, &chunk);
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
