//! The job's options, under the names of the pipeline that it replaces. Flag beats environment.

use std::path::PathBuf;

use super::super::target::given;
use super::super::{JobError, TargetOptions};
use crate::client::{Client, CounterSource};

/// Options of `loadtest cache-hit`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to send.
    #[command(flatten)]
    pub target: TargetOptions,

    /// Base URLs of the model pods, comma-separated: their counters are read directly.
    #[arg(long, env = "POD_URLS", value_name = "URL,...", value_delimiter = ',')]
    pub pod_urls: Vec<String>,

    /// Prometheus, asked for the counters when no pods are named.
    #[arg(long, env = "PROM_URL", value_name = "URL")]
    pub prom_url: Option<String>,

    /// Requests sent before measuring. Default 1, or 0 with --raw.
    #[arg(long, env = "WARMUP_COUNT", value_name = "N")]
    pub warmup_count: Option<u32>,

    /// Measured requests.
    #[arg(long, env = "REQUESTS", value_name = "N", default_value_t = Self::default().requests)]
    pub requests: u32,

    /// Seconds to sleep between requests.
    #[arg(
        long,
        env = "SLEEP_SECONDS",
        value_name = "SECONDS",
        default_value_t = Self::default().sleep_seconds
    )]
    pub sleep_seconds: f64,

    /// Prompt to send instead of the built-in one (193 chat tokens under Llama 3.2).
    #[arg(long, value_name = "TEXT")]
    pub prompt: Option<String>,

    /// Send the prompt to /v1/completions, without template, warm-up and health check.
    #[arg(long)]
    pub raw: bool,

    /// Ask for whole answers instead of streams; TTFT is then the first byte of a finished answer.
    #[arg(long)]
    pub no_stream: bool,

    /// Send no session header and no cookie: only the prompt can lead to the warm pod.
    #[arg(long)]
    pub no_session_headers: bool,

    /// Print the first measured answer only, not all of them.
    #[arg(long)]
    pub brief: bool,

    /// File that the measured session's key is written to, for a pipeline's next step.
    #[arg(long, value_name = "FILE")]
    pub session_id_file: Option<PathBuf>,

    /// Runs side by side, each with its own session.
    #[arg(long, value_name = "N", default_value_t = Self::default().runs)]
    pub runs: u32,

    /// Pods behind the gateway, for the arithmetic. Default: as many as --pod-urls, else 3.
    #[arg(long, value_name = "N")]
    pub pods: Option<u32>,

    /// Tokens of a KV block, for the arithmetic. Default: as the first pod says, else 16.
    #[arg(long, value_name = "TOKENS")]
    pub block_size: Option<u32>,

    /// Exit 1 below this hit rate, in percent.
    #[arg(long, value_name = "PERCENT")]
    pub min_hit_rate: Option<f64>,

    /// Exit 1 if a session's top pod got less than this share of it, in percent.
    #[arg(long, value_name = "PERCENT")]
    pub min_stickiness: Option<f64>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            target: TargetOptions::default(),
            pod_urls: Vec::new(),
            prom_url: None,
            warmup_count: None,
            requests: 30,
            sleep_seconds: 0.8,
            prompt: None,
            raw: false,
            no_stream: false,
            no_session_headers: false,
            brief: false,
            session_id_file: None,
            runs: 1,
            pods: None,
            block_size: None,
            min_hit_rate: None,
            min_stickiness: None,
        }
    }
}

impl Options {
    /// Refuses values that no run can honour.
    pub(super) fn check(&self) -> Result<(), JobError> {
        let wrong = |text: &str| Err(JobError::Option(text.to_owned()));
        if self.requests == 0 {
            return wrong("--requests is 0: there would be nothing to measure");
        }
        if !(1..=64).contains(&self.runs) {
            return wrong("--runs must be 1 to 64");
        }
        if !(0.0..=3600.0).contains(&self.sleep_seconds) {
            return wrong("--sleep-seconds must be 0 to 3600");
        }
        Ok(())
    }

    /// Requests sent before the baseline.
    pub fn warmups(&self) -> u32 {
        self.warmup_count.unwrap_or(u32::from(!self.raw))
    }

    /// The measured prompt.
    pub(super) fn prompt_text(&self) -> &str {
        given(self.prompt.as_ref()).unwrap_or(crate::workload::PROMPT)
    }

    /// Pods for the arithmetic, and whether that number is a guess.
    pub(super) fn pod_count(&self) -> (u32, bool) {
        let named = u32::try_from(self.pod_clients_len()).unwrap_or(u32::MAX);
        match self.pods {
            Some(pods) => (pods, false),
            None if named > 0 => (named, false),
            None => (3, true),
        }
    }

    /// One client per named pod. Pods are asked by their own address, without the Host header.
    pub(super) fn pod_clients(&self) -> Result<Vec<Client>, JobError> {
        let urls = self.pod_urls.iter().filter(|url| !url.is_empty());
        urls.map(|url| Ok(Client::new(url, None)?)).collect()
    }

    /// Where the counters come from: the pods if named, else Prometheus, else nowhere.
    pub(super) fn counter_source(&self) -> Result<Option<CounterSource>, JobError> {
        let pods = self.pod_clients()?;
        if !pods.is_empty() {
            return Ok(Some(CounterSource::Pods(pods)));
        }
        let prometheus = given(self.prom_url.as_ref()).map(|url| Client::new(url, None));
        Ok(prometheus.transpose()?.map(CounterSource::Prometheus))
    }

    fn pod_clients_len(&self) -> usize {
        self.pod_urls.iter().filter(|url| !url.is_empty()).count()
    }
}
