//! What every route needs: the engine, the tokenizer, the names, and the helpers around them.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderMap;
use router::tokenize::{ChatRequest, Tokenizer};
use serde_json::{Value, json};

use super::{
    body::Body,
    config::Config,
    driver::Driver,
    errors::ApiError,
    fault::{Faults, KvFault},
    http_metrics::HttpMetrics,
    publisher::Publisher,
    recorder::Recorder,
    transfer::Peers,
};

/// One simulated pod, shared by its routes.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) config: Config,
    pub(super) driver: Driver,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) faults: Faults,
    pub(super) recorder: Recorder,
    pub(super) http: HttpMetrics,
    /// None: it publishes no KV events.
    pub(super) publisher: Option<Publisher>,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Where other pods read its KV; none without a connector.
    pub(super) channel: Option<SocketAddr>,
    /// Half of its engine's id; the other half counts restarts.
    pub(super) engine_id: u64,
    /// The way to other pods' KV.
    pub(super) peers: Peers,
    /// Seconds since the epoch at start.
    pub(super) started: u64,
}

/// The name a pod goes by under the `wrong_model` fault.
const WRONG_MODEL: &str = "another/model";

/// vLLM prints its version and a hash of its configuration.
pub(super) const FINGERPRINT: &str = "vllm-0.32.0-00000000";

/// Prompt and output tokens of a request so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) cached_tokens: usize,
}

// === impl Pod ===

impl Pod {
    /// The names that `/v1/models` lists: base model, then adapters.
    pub(super) fn served(&self) -> Vec<String> {
        if self.faults.wrong_model() {
            return vec![WRONG_MODEL.to_owned()];
        }
        std::iter::once(&self.config.model).chain(&self.config.loras).cloned().collect()
    }

    /// The model a body asks for; none given is the base model.
    pub(super) fn model(&self, body: &Body) -> Result<String, ApiError> {
        let served = self.served();
        match body.text("model")? {
            None => Ok(served[0].clone()),
            Some(name) if served.iter().any(|one| one == name) => Ok(name.to_owned()),
            Some(name) => Err(ApiError::no_model(name, &served)),
        }
    }

    /// What separates the cache of a request: its adapter and its own salt.
    pub(super) fn salt(&self, model: &str, salt: &str) -> String {
        if self.config.loras.iter().any(|lora| lora == model) {
            format!("lora:{model}\n{salt}")
        } else {
            salt.to_owned()
        }
    }

    /// Does something to the KV events.
    pub(super) async fn kv_fault(&self, fault: KvFault) {
        if fault == KvFault::Restart {
            self.driver.restart();
        }
        if let Some(publisher) = &self.publisher {
            publisher.fault(fault).await;
        }
    }

    /// The adapter and the request's own salt in what [`Pod::salt`] made.
    pub(super) fn salt_parts(salt: &str) -> (Option<&str>, &str) {
        match salt.strip_prefix("lora:").and_then(|rest| rest.split_once('\n')) {
            Some((lora, salt)) => (Some(lora), salt),
            None => (None, salt),
        }
    }

    /// The prompt ids of a body with `messages`.
    pub(super) fn chat_tokens(&self, body: &Body) -> Result<Vec<u32>, ApiError> {
        if body.list("messages")?.is_none() {
            let words = "Field required";
            return Err(ApiError::field_type("messages", "missing", words, &Value::Null));
        }
        self.message_tokens(&body.0)
    }

    /// The prompt ids of a chat in OpenAI's form.
    pub(super) fn message_tokens(&self, chat: &Value) -> Result<Vec<u32>, ApiError> {
        let now = jiff::Timestamp::now();
        Ok(self.tokenizer.chat_tokens(&ChatRequest::from_body(chat, now)?)?)
    }
}

/// `prefix` and the client's `X-Request-Id`, or 16 random hex digits.
pub(super) fn request_id(prefix: &str, headers: &HeaderMap) -> String {
    match headers.get("x-request-id").and_then(|value| value.to_str().ok()) {
        Some(given) => format!("{prefix}{given}"),
        None => format!("{prefix}{:016x}", rand::random::<u64>()),
    }
}

/// Refuses a rank that this pod does not have: it has the one. What is no number counts for nothing.
pub(super) fn check_rank(headers: &HeaderMap) -> Result<(), ApiError> {
    let rank = headers.get("x-data-parallel-rank").and_then(|value| value.to_str().ok());
    match rank.and_then(|rank| rank.trim().parse::<i64>().ok()) {
        None | Some(0) => Ok(()),
        Some(rank) => {
            Err(ApiError::bad(format!("data_parallel_rank {rank} is out of range [0, 1).")))
        }
    }
}

/// Seconds since the epoch.
pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

// === impl Usage ===

impl Usage {
    /// `usage` of a whole response; `block_size` tells which tokens became new cache blocks.
    pub(super) fn whole(self, block_size: usize) -> Value {
        let created = self.prompt_tokens / block_size * block_size;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {
                "cached_tokens": self.cached_tokens,
                "created_cache_tokens": created.saturating_sub(self.cached_tokens),
                "multimodal_tokens": null,
            },
            "completion_tokens_details": null,
        })
    }

    /// `usage` of a stream's last chunk.
    pub(super) fn last(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        })
    }

    /// `usage` of every chunk under `continuous_usage_stats`.
    pub(super) fn running(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
            "completion_tokens_details": null,
        })
    }
}
