//! One pod, asked everything that an operator would ask with curl.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, DATE, HeaderValue};
use reqwest::{Client, StatusCode};
use router::Tokenizers;
use router::feed::kv_events::Target;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tokens::{self, Agreement};
use crate::disagreements::Claims;

/// How a pod is asked.
#[derive(Debug)]
pub(super) struct How<'a> {
    /// How long the gateway leaves a connection idle.
    pub(super) idle: Duration,
    /// The gateway's own tokenizers.
    pub(super) tokenizers: &'a Tokenizers,
}

/// What a pod says of itself. None: it could not be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    pub(super) models: Vec<String>,
    /// Of these, the adapters, each with the model that it adapts.
    pub(super) parents: BTreeMap<String, String>,
    pub(super) version: Option<String>,
    pub(super) block_size: Option<u32>,
    pub(super) prefix_caching: Option<bool>,
    pub(super) events: Events,
    /// Whether `usage` says how many tokens were cached.
    pub(super) token_details: Option<bool>,
    /// Whether it makes the same tokens as we do.
    pub(super) tokens: Agreement,
    /// Its clock less ours, in seconds.
    pub(super) clock_skew_s: Option<i64>,
    /// Whether an idle connection is still open when we would use it again.
    pub(super) keeps_alive: Option<bool>,
}

/// Its KV events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Events {
    /// It does not know the question.
    #[default]
    Unknown,
    Off,
    /// It publishes where nothing can be dialled.
    Unreachable {
        port: u16,
    },
    On {
        replay: bool,
    },
}

/// Why a pod could not be examined.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExamineError {
    #[error("nothing answers (dropped, not refused)")]
    Dropped,
    #[error("the connection is refused")]
    Refused,
    #[error("/v1/models says {0}")]
    Status(StatusCode),
    #[error("no answer: {0}")]
    NoAnswer(String),
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Six blocks of 16 tokens at least, so that its second run must be a hit.
const PROBE_WORDS: usize = 128;

// === impl Facts ===

impl Facts {
    /// As much of it as can disagree with the settings.
    pub(super) fn claims(&self) -> Claims {
        let with_parent = |model: &String| (model.clone(), self.parents.get(model).cloned());
        let tells = matches!(self.events, Events::On { .. });
        Claims { models: self.models.iter().map(with_parent).collect(), tells, is_asked: true }
    }
}

/// Asks pods with the token that they want, if they want one (`vllm serve --api-key`).
pub(super) fn client(token: Option<HeaderValue>) -> Result<Client, reqwest::Error> {
    let fields = token.map(|token| (AUTHORIZATION, token));
    let builder = Client::builder().default_headers(fields.into_iter().collect());
    builder.connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).no_proxy().build()
}

pub(super) async fn examine(
    client: &Client,
    addr: SocketAddr,
    how: &How<'_>,
) -> Result<Facts, ExamineError> {
    let mut stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
        Err(_elapsed) => return Err(ExamineError::Dropped),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Err(ExamineError::Refused);
        }
        Ok(Err(error)) => return Err(ExamineError::NoAnswer(error.to_string())),
        Ok(Ok(stream)) => stream,
    };
    let models = get(client, addr, "/v1/models").await?;
    let cards = || models["data"].as_array().into_iter().flatten();
    let text_of = |it: &Value| it.as_str().map(str::to_owned);
    let parents = cards().filter_map(|it| text_of(&it["id"]).zip(text_of(&it["parent"]))).collect();
    let models: Vec<_> = cards().filter_map(|it| text_of(&it["id"])).collect();
    let metrics = text(client, addr, "/metrics").await.unwrap_or_default();
    let details = async {
        match models.first() {
            Some(model) => token_details(client, addr, model).await,
            None => None,
        }
    };
    let tokens = async {
        let first = models.first();
        match first.and_then(|model| Some((model, how.tokenizers.get(model)?))) {
            Some((model, tokenizer)) => tokens::compare(client, addr, model, tokenizer).await,
            None => Agreement::default(),
        }
    };
    let (events, token_details, tokens, clock_skew_s, keeps_alive) = tokio::join!(
        events(client, addr),
        details,
        tokens,
        clock_skew_s(client, addr),
        keeps_alive(&mut stream, how.idle),
    );
    let version = get(client, addr, "/version").await.ok();
    Ok(Facts {
        version: version.and_then(|it| it["version"].as_str().map(str::to_owned)),
        block_size: label(&metrics, "block_size").and_then(|it| it.parse().ok()),
        prefix_caching: label(&metrics, "enable_prefix_caching").map(|it| it == "True"),
        models,
        parents,
        events,
        token_details,
        tokens,
        clock_skew_s,
        keeps_alive,
    })
}

/// A label of vLLM's own account of its cache.
pub(super) fn label<'a>(metrics: &'a str, name: &str) -> Option<&'a str> {
    let line = metrics.lines().find(|line| line.starts_with("vllm:cache_config_info{"))?;
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

async fn text(client: &Client, addr: SocketAddr, path: &str) -> Result<String, ExamineError> {
    let no_answer = |error: reqwest::Error| ExamineError::NoAnswer(error.to_string());
    let response = client.get(format!("http://{addr}{path}")).send().await.map_err(no_answer)?;
    match response.status() {
        StatusCode::OK => response.text().await.map_err(no_answer),
        other => Err(ExamineError::Status(other)),
    }
}

async fn get(client: &Client, addr: SocketAddr, path: &str) -> Result<Value, ExamineError> {
    let text = text(client, addr, path).await?;
    serde_json::from_str(&text).map_err(|error| ExamineError::NoAnswer(error.to_string()))
}

async fn events(client: &Client, addr: SocketAddr) -> Events {
    let Ok(told) = text(client, addr, "/kv_event_sources").await else { return Events::Unknown };
    let Ok(ranks) = Target::read_all(told.as_bytes(), addr.ip()) else { return Events::Unknown };
    if ranks.is_empty() {
        return Events::Off;
    }
    // A rank without a port of its own dials the gateway (`kv_events.bind`).
    for publish in ranks.iter().filter_map(|rank| rank.publish) {
        if !matches!(timeout(CONNECT_TIMEOUT, TcpStream::connect(publish)).await, Ok(Ok(_))) {
            return Events::Unreachable { port: publish.port() };
        }
    }
    Events::On { replay: ranks.iter().all(|rank| rank.replay.is_some()) }
}

/// Sends one prompt twice: of the second, most must come from the cache, and `usage` say so.
async fn token_details(client: &Client, addr: SocketAddr, model: &str) -> Option<bool> {
    let body = json!({"model": model, "prompt": "hearth ".repeat(PROBE_WORDS), "max_tokens": 1});
    let mut told = None;
    for _ in 0..2 {
        let url = format!("http://{addr}/v1/completions");
        let response = client.post(url).json(&body).send().await.ok()?;
        let answer: Value = response.error_for_status().ok()?.json().await.ok()?;
        told = Some(answer["usage"]["prompt_tokens_details"]["cached_tokens"].is_number());
    }
    told
}

async fn clock_skew_s(client: &Client, addr: SocketAddr) -> Option<i64> {
    let response = client.get(format!("http://{addr}/health")).send().await.ok()?;
    let date = response.headers().get(DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(theirs - i64::try_from(ours).ok()?)
}

/// Leaves a connection idle for as long as the gateway would, and sees whether it is still there.
async fn keeps_alive(stream: &mut TcpStream, idle: Duration) -> Option<bool> {
    let ask = b"GET /health HTTP/1.1\r\nhost: doctor\r\n\r\n";
    stream.write_all(ask).await.ok()?;
    let mut answer = [0; 4096];
    let read = timeout(TIMEOUT, stream.read(&mut answer)).await.ok()?.ok()?;
    if read == 0 {
        return Some(false);
    }
    Some(match timeout(idle, stream.read(&mut answer)).await {
        Err(_still_open) => true,
        Ok(Ok(more)) => more > 0,
        Ok(Err(_reset)) => false,
    })
}
