//! The sections of the configuration. The doc comments are the reference that `hearth config`
//! prints, and each `Default` is the only place where a default is written.

use std::net::SocketAddr;
use std::path::PathBuf;

use kv_index::ExactSettings;
use router::rescue::RescueSettings;
use router::silence::SilenceSettings;
use router::tokenize::Memo;
use router::units::HumanDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bytes::{ByteSize, MemoryBudget};

/// The TLS listener, beside the plain one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Address of the TLS listener (HTTP/1.1, and HTTP/2 by ALPN); none: no TLS.
    pub listen: Option<SocketAddr>,
    /// Certificate chain, a PEM file with the leaf first.
    pub cert: Option<PathBuf>,
    /// Private key of the leaf, a PEM file (PKCS#8, SEC1 or PKCS#1).
    pub key: Option<PathBuf>,
    /// How often the two files are read again; a pair that does not fit leaves the old one in use.
    pub reload_interval: HumanDuration,
}

/// How long each phase of a request may take. A phase that runs out ends the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// Connecting to a pod, TCP handshake only.
    pub connect: HumanDuration,
    /// From a request's first byte to the end of its head, in total (408).
    pub request_head: HumanDuration,
    /// Reading the whole request body (408).
    pub request_body: HumanDuration,
    /// From sending a request to the pod's first byte: queue and prefill (504).
    pub first_byte: HumanDuration,
    /// Between two bytes of a pod's answer.
    pub between_bytes: HumanDuration,
    /// Between two bytes of a pod on a WebSocket, from its handshake on: vLLM's server pings every 20 s.
    pub websocket_idle: HumanDuration,
    /// A client that takes nothing for this long is cut, so that it cannot hold a slot on a GPU.
    pub client_write: HumanDuration,
    /// An idle client connection between two requests.
    pub keep_alive: HumanDuration,
    /// An HTTP/2 client connection without open streams.
    pub h2_idle: HumanDuration,
    /// Sending a whole request, of up to `limits.body`, to a pod.
    pub upstream_write: HumanDuration,
    /// An idle connection to a pod; below vLLM's own 5 s, so that the pod does not close it first.
    pub upstream_idle: HumanDuration,
}

/// What may be held at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest request body; a longer one is refused before it is read (413).
    pub body: ByteSize,
    /// Bytes of request bodies held over all requests: a size, or a share of memory like `25%` (of
    /// the container's limit if it has one). A body that does not fit is refused (503).
    pub bodies_held: MemoryBudget,
    /// Longest request head (431).
    pub head: ByteSize,
    /// Client connections at once, over all listeners; 0: no limit.
    pub connections: usize,
}

/// Trying another pod before the first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Pods tried for one request, the first one included.
    pub attempts: u32,
    /// Retries as a share of requests, 0 to 1: an outage must not double the load of the rest. 0: no
    /// retry at all.
    pub budget: f64,
    /// Retries per second that are allowed beyond that share, saved up over 10 seconds: a pod that
    /// dies under a small fleet's few requests costs all of them a retry at once. 0: none.
    pub floor_per_s: u32,
}

/// What happens to an answer whose pod fails.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Survive {
    /// Streams of chats and completions whose pod fails go on at another pod. For that, pods are asked
    /// for token ids (`return_token_ids`), which clients that did not ask do not see.
    pub migrate: bool,
    /// How often one stream may go on at another pod.
    pub moves: u32,
    /// A plain answer up to this size is held until it is whole, so that it can be asked of another
    /// pod; of a stream, what comes before the first token. Longer ones go out as they come.
    pub hold: ByteSize,
    /// When an answer that says nothing is given up.
    pub silence: SilenceSettings,
    /// When a late first token is asked of a second pod as well.
    pub rescue: RescueSettings,
}

/// What happens between SIGTERM and the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Requests are still accepted for this long while `/readyz` already says 503, until load
    /// balancers have heard of it. SIGINT skips it.
    pub linger: HumanDuration,
    /// Longest wait for running requests after that. Set the pod's
    /// `terminationGracePeriodSeconds` above linger and limit together.
    pub limit: HumanDuration,
}

/// Answering browsers on other origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Answers preflights and sends the CORS headers.
    pub enabled: bool,
    /// Origins let in, like `https://chat.example.com`; `*` lets in all.
    pub allow_origins: Vec<String>,
}

/// What is believed of headers that a proxy in front may have set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarded {
    /// Takes `x-forwarded-for`, `-proto` and `-host` as received and appends to them; otherwise they
    /// are replaced. Only behind a proxy that sets them itself.
    pub trust_addresses: bool,
    /// Keeps a client's `x-request-id` (at most 128 visible characters); otherwise each request
    /// gets a new one.
    pub trust_request_id: bool,
}

/// The program's own log, and the access log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Form of both logs.
    pub format: LogFormat,
    /// The program's log on stderr: `error`, `warn`, `info`, `debug`, `trace`, or directives like
    /// `info,gateway::proxy=debug`.
    pub level: String,
    /// One access-log line per request on stdout.
    pub access: bool,
    /// Access-log lines that may wait for stdout; more are dropped and counted, never waited for.
    pub access_queue: usize,
}

/// Form of the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people; coloured on a terminal.
    Text,
}

/// What `/metrics` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exposition {
    /// Shows the same things under the names of an Endpoint Picker, too (`inference_pool_*`,
    /// `inference_model_*`, `inference_extension_*`, `epp_*`), for dashboards that ask for those.
    pub epp_names: bool,
}

/// Spans of requests, for a tracing backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Traces {
    /// Where spans are sent, as OTLP over HTTP: `http://collector:4318/v1/traces`, plain HTTP only.
    /// None: there are no traces, and a client's `traceparent` goes to the pod as it is.
    pub endpoint: Option<String>,
    /// Share of requests that are traced, 0 to 1, of those whose client has not decided that itself by
    /// its `traceparent`.
    pub share: f64,
}

/// What is known of the pods' caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KvIndex {
    /// Memory of the exact index, of what pods tell of their caches (KV events), over all pods. A block takes about 25
    /// bytes, and a bit or two for each pod that holds it.
    pub exact_bytes: ByteSize,
    /// Of it, what one pod may need if it shares nothing.
    pub exact_bytes_per_pod: ByteSize,
    /// Memory of the approximate index, of which pod was sent which prompt, over all pods. A block of
    /// 16 tokens on one pod takes 68 bytes; of a long prompt not every block is kept.
    pub approximate_bytes: ByteSize,
    /// A block that was sent and not used for so long is taken as gone from the pod.
    pub approximate_max_age: HumanDuration,
}

/// Turning prompts into tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tokenizing {
    /// Memory for tokens of earlier prompts, over all models, so that a conversation's next turn
    /// tokenizes only what is new. A token takes about 4.5 bytes. 0: none.
    pub memo_bytes: ByteSize,
}

// === impl Traces ===

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: None, share: 0.05 }
    }
}

// === impl Tokenizing ===

impl Default for Tokenizing {
    fn default() -> Self {
        Self { memo_bytes: ByteSize::from_bytes(Memo::DEFAULT_BYTES as u64) }
    }
}

// === impl KvIndex ===

impl Default for KvIndex {
    fn default() -> Self {
        let kv_index::Settings { bytes, max_age_ms } = kv_index::Settings::default();
        let exact = ExactSettings::default();
        let size = |bytes: usize| ByteSize::from_bytes(bytes as u64);
        Self {
            exact_bytes: size(exact.bytes),
            exact_bytes_per_pod: size(exact.pod_bytes),
            approximate_bytes: size(bytes),
            approximate_max_age: HumanDuration::from_millis(max_age_ms),
        }
    }
}

impl KvIndex {
    /// The bounds of the exact index.
    #[must_use]
    pub fn exact(&self) -> ExactSettings {
        ExactSettings { bytes: self.exact_bytes.len(), pod_bytes: self.exact_bytes_per_pod.len() }
    }

    /// The bounds of the approximate index.
    #[must_use]
    pub fn approximate(&self) -> kv_index::Settings {
        let max_age_ms = u64::try_from(self.approximate_max_age.as_millis()).unwrap_or(u64::MAX);
        kv_index::Settings { bytes: self.approximate_bytes.len(), max_age_ms }
    }
}

// === impl Tls ===

impl Default for Tls {
    fn default() -> Self {
        Self { listen: None, cert: None, key: None, reload_interval: HumanDuration::from_secs(10) }
    }
}

// === impl Deadlines ===

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: HumanDuration::from_secs(1),
            request_head: HumanDuration::from_secs(10),
            request_body: HumanDuration::from_secs(60),
            first_byte: HumanDuration::from_secs(600),
            between_bytes: HumanDuration::from_secs(60),
            websocket_idle: HumanDuration::from_secs(60),
            client_write: HumanDuration::from_secs(60),
            keep_alive: HumanDuration::from_secs(75),
            h2_idle: HumanDuration::from_secs(120),
            upstream_write: HumanDuration::from_secs(60),
            upstream_idle: HumanDuration::from_secs(3),
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: ByteSize::from_mib(32),
            bodies_held: MemoryBudget::Bytes(ByteSize::from_mib(1024)),
            head: ByteSize::from_kib(64),
            connections: 0,
        }
    }
}

impl Limits {
    /// `bodies_held` in bytes, given this machine's memory; a GiB where that cannot be told.
    #[must_use]
    pub fn bodies_held_bytes(&self) -> usize {
        let memory = super::memory_bytes().unwrap_or(1 << 30);
        usize::try_from(self.bodies_held.bytes_of(memory)).unwrap_or(usize::MAX)
    }
}

// === impl Retry ===

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, budget: 0.2, floor_per_s: 10 }
    }
}

// === impl Survive ===

impl Default for Survive {
    fn default() -> Self {
        Self {
            migrate: true,
            moves: 4,
            hold: ByteSize::from_kib(256),
            silence: SilenceSettings::default(),
            rescue: RescueSettings::default(),
        }
    }
}

// === impl Drain ===

impl Default for Drain {
    fn default() -> Self {
        Self { linger: HumanDuration::from_secs(5), limit: HumanDuration::from_secs(600) }
    }
}

// === impl Cors ===

impl Default for Cors {
    fn default() -> Self {
        Self { enabled: false, allow_origins: vec!["*".to_owned()] }
    }
}

// === impl Forwarded ===

impl Default for Forwarded {
    fn default() -> Self {
        Self { trust_addresses: false, trust_request_id: true }
    }
}

// === impl Log ===

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info".to_owned(), access: true, access_queue: 8192 }
    }
}
