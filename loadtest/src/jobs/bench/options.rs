//! Options of `loadtest bench`.

use std::path::PathBuf;

use super::super::{JobError, TargetOptions};

/// How requests are paced; guidellm's words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum RateType {
    /// One after another.
    Synchronous,
    /// `--rate` requests in flight at all times.
    Concurrent,
    /// `--rate` requests per second, evenly spaced.
    Constant,
    /// `--rate` requests per second on average, as independent users send them.
    Poisson,
    /// One at a time, then as many as possible, then constant rates between the two.
    Sweep,
    /// As many as possible.
    Throughput,
}

/// Options of `loadtest bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to send.
    #[command(flatten)]
    pub target: TargetOptions,

    /// How requests are paced.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Self::default().rate_type)]
    pub rate_type: RateType,

    /// Requests per second, or in flight for `concurrent`; several make several stages.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub rate: Vec<f64>,

    /// Seconds of each stage.
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().max_seconds)]
    pub max_seconds: u64,

    /// End each stage after so many requests.
    #[arg(long, value_name = "N")]
    pub max_requests: Option<u64>,

    /// Prompt tokens, about; every prompt is another.
    #[arg(long, value_name = "TOKENS", default_value_t = Self::default().prompt_tokens)]
    pub prompt_tokens: u32,

    /// Of these, tokens at the start that all prompts share.
    #[arg(long, value_name = "TOKENS", default_value_t = Self::default().shared_prefix_tokens)]
    pub shared_prefix_tokens: u32,

    /// Output tokens; `ignore_eos` makes vLLM generate them all.
    #[arg(long, value_name = "TOKENS", default_value_t = Self::default().output_tokens)]
    pub output_tokens: u32,

    /// Most requests in flight in an open loop and for `throughput`.
    #[arg(long, value_name = "N", default_value_t = Self::default().max_concurrency)]
    pub max_concurrency: u32,

    /// Constant rates that a sweep tries between its two ends.
    #[arg(long, value_name = "N", default_value_t = Self::default().sweep_steps)]
    pub sweep_steps: u32,

    /// Ask for whole answers instead of streams.
    #[arg(long)]
    pub no_stream: bool,

    /// Seed of the arrivals. Prompts are new in every run, so that none is cached from the last.
    #[arg(long, value_name = "N", default_value_t = Self::default().seed)]
    pub seed: u64,

    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

// === impl RateType ===

impl RateType {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Synchronous => "synchronous",
            Self::Concurrent => "concurrent",
            Self::Constant => "constant",
            Self::Poisson => "poisson",
            Self::Sweep => "sweep",
            Self::Throughput => "throughput",
        }
    }

    fn needs_rate(self) -> bool {
        matches!(self, Self::Concurrent | Self::Constant | Self::Poisson)
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            target: TargetOptions::default(),
            rate_type: RateType::Synchronous,
            rate: Vec::new(),
            max_seconds: 30,
            max_requests: None,
            prompt_tokens: 256,
            shared_prefix_tokens: 0,
            output_tokens: 128,
            max_concurrency: 512,
            sweep_steps: 5,
            no_stream: false,
            seed: 1,
            output: None,
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), JobError> {
        let wrong = |text: String| Err(JobError::Option(text));
        let name = self.rate_type.name();
        if self.rate_type.needs_rate() && self.rate.is_empty() {
            return wrong(format!("--rate-type {name} needs --rate"));
        }
        if !self.rate_type.needs_rate() && !self.rate.is_empty() {
            return wrong(format!("--rate-type {name} takes no --rate"));
        }
        if let Some(rate) = self.rate.iter().find(|rate| !(1e-3..=1e6).contains(*rate)) {
            return wrong(format!("--rate {rate} is not between 0.001 and 1000000"));
        }
        if self.rate_type == RateType::Concurrent
            && let Some(rate) = self.rate.iter().find(|rate| rate.fract() > 0.0 || **rate < 1.0)
        {
            return wrong(format!("--rate {rate} is not a whole number of requests in flight"));
        }
        if self.max_concurrency == 0 || self.max_seconds == 0 || self.max_requests == Some(0) {
            return wrong(
                "--max-concurrency, --max-seconds, --max-requests must be above 0".into(),
            );
        }
        Ok(())
    }
}
