//! Options of `loadtest restart`.

use crate::client::Client;
use crate::jobs::{JobError, TargetOptions};

/// Options of `loadtest restart`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to send.
    #[command(flatten)]
    pub target: TargetOptions,

    /// Base URLs of the pods to restart, comma-separated, in this order.
    #[arg(long, env = "POD_URLS", value_name = "URL,...", value_delimiter = ',')]
    pub pod_urls: Vec<String>,

    /// How a simulated pod goes.
    #[arg(long, value_enum, default_value_t = Self::default().how)]
    pub how: How,

    /// Milliseconds until a simulated pod listens again.
    #[arg(long, value_name = "MS", default_value_t = Self::default().away_ms)]
    pub away_ms: u64,

    /// A shell command that restarts a real pod, with its URL in `POD_URL` and its address in `POD`
    /// (`kubectl delete pod …`); instead of `--how`.
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,

    /// Streams under way at once.
    #[arg(long, value_name = "N", default_value_t = Self::default().concurrency)]
    pub concurrency: usize,

    /// Requests that have to end while a pod is away, before the next one may go.
    #[arg(long, value_name = "N", default_value_t = Self::default().requests_away)]
    pub requests_away: u64,

    /// Different prompts. Each is asked once before, and has to get that answer again; 0 restarts
    /// without looking at the text (models that do not repeat themselves).
    #[arg(long, value_name = "N", default_value_t = Self::default().prompts)]
    pub prompts: usize,

    /// Tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = Self::default().max_tokens)]
    pub max_tokens: u32,

    /// Exit 1 if more requests than this were not whole.
    #[arg(long, value_name = "N", default_value_t = Self::default().max_visible)]
    pub max_visible: u64,
}

/// How a simulated pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// `kill -9`: connections close at once.
    Kill,
    /// SIGTERM of a vLLM without `--shutdown-timeout`: its streams fall silent and stay open.
    Terminate,
    /// The engine dies under its API server: streams end with an error event.
    EngineDeath,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            target: TargetOptions::default(),
            pod_urls: Vec::new(),
            how: How::Kill,
            away_ms: 500,
            command: None,
            concurrency: 16,
            requests_away: 50,
            prompts: 16,
            max_tokens: 64,
            max_visible: 0,
        }
    }
}

impl Options {
    /// One client per named pod.
    pub(super) fn pod_clients(&self) -> Result<Vec<Client>, JobError> {
        let urls = self.pod_urls.iter().filter(|url| !url.is_empty());
        urls.map(|url| Ok(Client::new(url, None)?)).collect()
    }
}
