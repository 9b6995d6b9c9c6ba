//! The settings: one YAML file, the environment (`HEARTH_*`) and flags.
//!
//! A flag beats the environment, which beats the file, which beats the default. Each key is
//! written down once, as a field with a doc comment and a default: its environment variable, its
//! flag and its entry in `hearth config` are made from that. Whatever is not a key stops the start.

mod bytes;
mod error;
mod keys;
mod lines;
mod load;
mod reference;
mod sections;
#[cfg(test)]
mod tests;
mod validate;
mod words;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use router::SplitSettings;
use router::aliases::ModelNames;
use router::discovery::{DiscoverySettings, KubernetesSettings, StaticEndpoint};
use router::feed::kv_events::KvEventsSettings;
use router::policy;
use router::pool::PoolSettings;
use router::queue::QueueSettings;
use router::tokenize::TokenizerSource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use validate::check_level;

use crate::epp::EppSettings;

pub use bytes::{ByteSize, MemoryBudget, memory_bytes};
pub use error::{ConfigError, Problem};
pub(crate) use keys::switch;
pub use keys::{CONFIG_ENV, Key, Kind, keys};
pub use load::{Loaded, Origin, Setting, environment, load_over};
pub use reference::write_reference;
pub use sections::{
    Cors, Deadlines, Drain, Exposition, Forwarded, KvIndex, Limits, Log, LogFormat, Retry, Survive,
    Tls, Tokenizing, Traces,
};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address of the traffic listener (HTTP/1.1, and HTTP/2 by prior knowledge).
    pub listen: SocketAddr,
    /// Address of the admin listener: `/metrics`, `/healthz`, `/readyz`, `/pool`,
    /// `/why`, `/config`.
    pub admin_listen: SocketAddr,
    /// Threads of the data plane; 0: one per core.
    pub threads: usize,
    /// The TLS listener, beside the plain one.
    pub tls: Tls,
    /// Pods named by hand: URLs like `http://10.0.0.1:8000`, or `{url: ..., role: prefill}` (or
    /// `decode`, `both`). A host name stands for all its addresses.
    pub endpoints: Vec<StaticEndpoint>,
    /// Finding pods through the Kubernetes API.
    pub kubernetes: KubernetesSettings,
    /// What is known of pods, and when it is believed.
    pub pool: PoolSettings,
    /// Choosing a pod.
    pub routing: policy::Settings,
    /// Prefill and decode on different pods: where some pods have the role `prefill`.
    pub split: SplitSettings,
    /// Remembering which pod was sent which prompt.
    pub kv_index: KvIndex,
    /// Hearing from the pods themselves what they hold.
    pub kv_events: KvEventsSettings,
    /// Tokenizers, as `MODEL: DIR`, a folder with `tokenizer.json` and `tokenizer_config.json`, or as
    /// `MODEL: hf:REPO[@REVISION]`, from the Hugging Face cache or else downloaded (`HF_HUB_CACHE`,
    /// `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` count). A model without one is
    /// matched by the bytes of its prompts.
    pub tokenizers: BTreeMap<String, TokenizerSource>,
    /// Other names of models.
    pub model_names: ModelNames,
    /// Turning prompts into tokens.
    pub tokenizing: Tokenizing,
    /// How long each phase of a request may take.
    pub deadlines: Deadlines,
    /// What may be held at once.
    pub limits: Limits,
    /// How many requests a pod gets at once, and what happens to more.
    pub queue: QueueSettings,
    /// Trying another pod before the first byte of an answer.
    pub retry: Retry,
    /// What happens to an answer whose pod fails.
    pub survive: Survive,
    /// What happens between SIGTERM and the end.
    pub drain: Drain,
    /// Answering browsers on other origins.
    pub cors: Cors,
    /// What is believed of headers that a proxy in front may have set.
    pub forwarded: Forwarded,
    /// Deciding for an Envoy instead of relaying: `hearth epp`.
    pub epp: EppSettings,
    /// What `/metrics` shows.
    pub metrics: Exposition,
    /// Spans of requests, for a tracing backend.
    pub traces: Traces,
    /// The program's own log, and the access log.
    pub log: Log,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 8080).into(),
            admin_listen: (Ipv4Addr::LOCALHOST, 9090).into(),
            threads: 0,
            tls: Tls::default(),
            endpoints: Vec::new(),
            kubernetes: KubernetesSettings::default(),
            pool: PoolSettings::default(),
            routing: policy::Settings::default(),
            split: SplitSettings::default(),
            kv_index: KvIndex::default(),
            kv_events: KvEventsSettings::default(),
            tokenizers: BTreeMap::new(),
            model_names: ModelNames::default(),
            tokenizing: Tokenizing::default(),
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            queue: QueueSettings::default(),
            retry: Retry::default(),
            survive: Survive::default(),
            drain: Drain::default(),
            cors: Cors::default(),
            forwarded: Forwarded::default(),
            epp: EppSettings::default(),
            metrics: Exposition::default(),
            traces: Traces::default(),
            log: Log::default(),
        }
    }
}

impl Config {
    /// Reads the file, then lays the environment and the flags over it.
    ///
    /// `env` may be the whole environment: only names that begin with `HEARTH_` count.
    ///
    /// # Errors
    /// A file that cannot be read; a key, variable or value that is not one; settings that do not
    /// go together. The message names the file and line, the variable or the flag.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[Setting],
    ) -> Result<Loaded, ConfigError> {
        load_over(&Self::default(), file, env, flags)
    }

    /// A fingerprint of the settings in force: FNV-1a (64 bits) of their JSON, as 16 hex digits.
    /// Gateways with the same settings show the same one, whatever the settings came from.
    #[must_use]
    pub fn hash(&self) -> String {
        use std::hash::Hasher as _;
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(self.to_json().to_string().as_bytes());
        format!("{:016x}", hasher.finish())
    }

    /// Where pods are looked for.
    #[must_use]
    pub fn discovery(&self) -> DiscoverySettings {
        DiscoverySettings { endpoints: self.endpoints.clone(), kubernetes: self.kubernetes.clone() }
    }

    /// The settings as JSON, in the shape of the file.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self)
            .expect("settings are strings, numbers, lists and maps of strings")
    }
}
