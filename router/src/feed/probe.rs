//! The probe: does this pod serve, and which models?

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{News, Voice, read_body};
use crate::backoff::doubled;
use crate::pod::ModelCard;
use crate::story::causes;
use crate::units::HumanDuration;

/// How pods are probed: `GET /health`, then `GET /v1/models`; of an engine that stood still, besides,
/// a completion of one token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeSettings {
    /// Time between probes of a pod that passes them; of more than 50 pods longer, so that all of them
    /// together are probed 10 times a second. A failed request, silence, and the end of a pod's stream
    /// of KV events have it probed at once. Its list of models is as fresh as this.
    pub interval: HumanDuration,
    /// Time between probes of a pod that has not passed one yet. After a failure it is doubled
    /// with every further one, up to `interval`.
    pub retry_interval: HumanDuration,
    /// Bound of one request of a probe, and of reading its answer.
    pub timeout: HumanDuration,
    /// Bound of connecting to a pod.
    pub connect_timeout: HumanDuration,
    /// A file with the bearer token that the pods want (`vllm serve --api-key`). Read at every
    /// probe, so that it can be rotated.
    pub token_file: Option<std::path::PathBuf>,
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection: nobody listens, or the address is gone.
    #[error("cannot connect")]
    Connect(#[source] reqwest::Error),
    /// The connection broke, or the answer took too long.
    #[error("no answer")]
    NoAnswer(#[source] reqwest::Error),
    /// `/health` was not 200. vLLM says 503 when its engine is dead.
    #[error("/health says {0}")]
    Unhealthy(StatusCode),
    /// `/v1/models` was not 200.
    #[error("/v1/models says {0}")]
    Models(StatusCode),
    /// `/v1/models` was longer than 4 MiB.
    #[error("/v1/models is longer than {MODELS_LIMIT} bytes")]
    TooLong,
    /// `/v1/models` was not what OpenAI's reference says.
    #[error("/v1/models is not a list of models")]
    NotModels(#[source] serde_json::Error),
    /// `/v1/models` lists nothing.
    #[error("/v1/models is empty")]
    NoModels,
    /// A completion of one token got a 5xx.
    #[error("a completion of one token says {0}")]
    NoToken(StatusCode),
    /// The token file could not be read.
    #[error("cannot read the token file")]
    Token(#[source] std::io::Error),
}

/// 4 MiB: some ten thousand adapters.
const MODELS_LIMIT: usize = 4 << 20;
/// However many requests fail, a pod is not probed more often than this.
pub(super) const MIN_GAP: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Models {
    data: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Card {
    id: String,
    parent: Option<String>,
    max_model_len: Option<u32>,
}

// === impl ProbeSettings ===

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            interval: HumanDuration::from_secs(5),
            retry_interval: HumanDuration::from_secs(1),
            // A vLLM server that prepares many long prompts answers late, not never.
            timeout: HumanDuration::from_secs(3),
            connect_timeout: HumanDuration::from_secs(1),
            token_file: None,
        }
    }
}

impl ProbeSettings {
    /// How long to wait after `failures` failed probes in a row. A pod that was never good is
    /// asked often: it is starting, and capacity waits for it.
    fn wait(&self, failures: u32, was_good: bool) -> Duration {
        let retry = self.retry_interval.get();
        match failures {
            0 => self.interval.get(),
            _ if !was_good => retry,
            _ => doubled(retry, self.interval.get().max(retry), failures - 1),
        }
    }
}

// === impl ProbeError ===

impl ProbeError {
    /// With the cause at the bottom of it: refused, timed out, reset.
    #[must_use]
    pub fn in_full(&self) -> String {
        match causes(self).last() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// Whether nobody listens there: the pod's process is gone.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        causes(self).any(|cause| {
            let io = cause.downcast_ref::<std::io::Error>();
            io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
        })
    }

    /// Whether the fault is ours, and says nothing of the pod.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// Whether this alone proves that the pod does not serve.
    #[must_use]
    pub fn means_dead(&self) -> bool {
        match self {
            // A connect that timed out may be a full backlog on a busy node.
            Self::Connect(error) => !error.is_timeout(),
            Self::Unhealthy(status) => status.is_server_error(),
            _ => false,
        }
    }
}

impl From<reqwest::Error> for ProbeError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_connect() { Self::Connect(error) } else { Self::NoAnswer(error) }
    }
}

/// Probes the pod until the task is aborted or the pool ends.
pub(super) async fn run(voice: Voice, client: reqwest::Client, settings: Arc<ProbeSettings>) {
    let asked = &voice.asked;
    let (mut failures, mut was_good, mut last_error) = (0, false, String::new());
    loop {
        let started = Instant::now();
        let generated = asked.token.load(Ordering::Relaxed);
        let result = probe(&voice, &client, &settings, generated).await;
        match &result {
            Ok(_) => (failures, was_good) = (0, true),
            Err(error) => {
                Voice::failed(&voice.counts.failed_probes);
                failures += 1;
                let text = error.in_full();
                if failures == 1 || text != last_error {
                    tracing::warn!(pod = %voice.pod.name, addr = %voice.pod.addr, error = text, "probe failed");
                    last_error = text;
                }
            }
        }
        let wait = settings.wait(failures, was_good).max(MIN_GAP);
        let next = if failures == 0 { voice.quiet(wait) } else { wait };
        if voice.tell(News::Probed { slot: voice.slot, result, generated, next }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = asked.doubt.notified() => tokio::time::sleep_until(started + MIN_GAP).await,
        }
    }
}

async fn probe(
    voice: &Voice,
    client: &reqwest::Client,
    settings: &ProbeSettings,
    generate: bool,
) -> Result<Vec<ModelCard>, ProbeError> {
    let token = match &settings.token_file {
        Some(path) => Some(tokio::fs::read_to_string(path).await.map_err(ProbeError::Token)?),
        None => None,
    };
    let with_token = |request: reqwest::RequestBuilder| match &token {
        Some(token) => request.bearer_auth(token.trim()),
        None => request,
    };
    let get = |path| with_token(client.get(voice.url(path)));
    let health = get("/health").send().await?.status();
    if health != StatusCode::OK {
        return Err(ProbeError::Unhealthy(health));
    }
    let models = get("/v1/models").send().await?;
    if models.status() != StatusCode::OK {
        return Err(ProbeError::Models(models.status()));
    }
    let body = read_body(models, MODELS_LIMIT).await?.ok_or(ProbeError::TooLong)?;
    let models = parse_models(&body)?;
    if generate {
        let body = one_token(&models);
        let post =
            client.post(voice.url("/v1/completions")).header("content-type", "application/json");
        let status = with_token(post.body(body)).send().await?.status();
        // A pod that knows no completions (embeddings) turns it down, which is an answer, too.
        if status.is_server_error() {
            return Err(ProbeError::NoToken(status));
        }
    }
    Ok(models)
}

/// A completion of one token, of the first model.
fn one_token(models: &[ModelCard]) -> String {
    let model = models.first().map(|card| &*card.id);
    serde_json::json!({ "model": model, "prompt": "Hello", "max_tokens": 1 }).to_string()
}

/// The cards of `{"object": "list", "data": [{"id": …}, …]}`.
fn parse_models(body: &[u8]) -> Result<Vec<ModelCard>, ProbeError> {
    let list: Models = serde_json::from_slice(body).map_err(ProbeError::NotModels)?;
    if list.data.is_empty() {
        return Err(ProbeError::NoModels);
    }
    list.data
        .iter()
        .map(|raw| {
            let card: Card = serde_json::from_str(raw.get())?;
            Ok(ModelCard {
                id: card.id.into(),
                parent: card.parent.map(Into::into),
                max_model_len: card.max_model_len,
                raw: raw.get().into(),
            })
        })
        .collect::<Result<_, _>>()
        .map_err(ProbeError::NotModels)
}

#[cfg(test)]
mod tests;
