//! What the job found, and whether its gates hold.

use super::super::below;
use super::{Engines, Expectation, Options};
use crate::client::{Answer, Counters, Usage, millis};
use crate::report::Tally;

const NOTHING_COUNTED: &str = "no tokens were counted: name the pods (--pod-urls) or Prometheus \
     (--prom-url), or start vLLM with --enable-prompt-tokens-details";

/// All runs of one job.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One entry per run.
    pub runs: Vec<RunOutcome>,
    /// One sentence per gate that does not hold; empty is success.
    pub shortfalls: Vec<String>,
}

/// One run.
#[derive(Clone, Debug)]
pub struct RunOutcome {
    /// The measured session's name.
    pub session: String,
    /// The engines' own counters, summed, before the measured requests; 0 when not read.
    pub baseline: Counters,
    /// Deltas of the engines' own counters, summed over all pods; `None` when they were not read.
    pub by_metrics: Option<Counters>,
    /// The same by the answers' `usage`: this run's tokens only. `None` when the engine does not
    /// tell cached tokens.
    pub by_usage: Option<Counters>,
    /// Measured requests per upstream, as the gateway named it.
    pub upstreams: Tally,
    /// Measured requests that failed.
    pub failed: u32,
    /// The first failure's reason.
    pub first_failure: Option<String>,
    /// Latency means over the requests that succeeded.
    pub averages: Averages,
    /// Prompt tokens of a measured request, as the first answer told.
    pub prompt_tokens: Option<u64>,
    /// What arithmetic allows on those engines; `None` when no answer told its prompt tokens.
    pub expectation: Option<(Engines, Expectation)>,
}

/// Latency means, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Averages {
    /// How many requests they are over.
    pub requests: u32,
    /// Time to first token, of those that had one.
    pub ttft_ms: Option<f64>,
    /// Time per output token after the first, of those that had more than one.
    pub tpot_ms: Option<f64>,
    /// Time to the last byte.
    pub total_ms: f64,
}

/// A mean in the making.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

/// Adds up measured answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) upstreams: Tally,
    pub(super) tokens_by_upstream: Tally,
    pub(super) failed: u32,
    pub(super) first_failure: Option<String>,
    /// What the first answer told.
    pub(super) first: Option<Usage>,
    usage: Counters,
    untold: u32,
    ttft_ms: Mean,
    tpot_ms: Mean,
    total_ms: Mean,
}

// === impl Outcome ===

impl Outcome {
    /// Holds the runs against the gates.
    pub(super) fn judge(options: &Options, runs: Vec<RunOutcome>) -> Self {
        let mut shortfalls = Vec::new();
        for run in &runs {
            let session = &run.session;
            if let Some(reason) = &run.first_failure {
                shortfalls.push(format!(
                    "{} of {} requests of session {session} failed, the first with: {reason}",
                    run.failed, options.requests
                ));
            }
            if run.measured().queries == 0 {
                shortfalls.push(NOTHING_COUNTED.to_owned());
            }
            let hit_rate = run.measured().hit_rate_percent();
            shortfalls.extend(below(
                &format!("hit rate (%) of session {session}"),
                hit_rate,
                options.min_hit_rate,
            ));
            shortfalls.extend(below(
                &format!("stickiness (%) of session {session}"),
                run.upstreams.top_percent(),
                options.min_stickiness,
            ));
        }
        Self { runs, shortfalls }
    }

    /// Whether every gate holds.
    pub fn is_success(&self) -> bool {
        self.shortfalls.is_empty()
    }
}

// === impl RunOutcome ===

impl RunOutcome {
    /// The counters' deltas if they were read, else what the answers told.
    pub fn measured(&self) -> Counters {
        self.by_metrics.or(self.by_usage).unwrap_or_default()
    }
}

// === impl Ledger ===

impl Ledger {
    /// Adds the tokens of an answer; one that does not tell is noted.
    pub(super) fn count_usage(&mut self, usage: Option<Usage>) {
        let told = usage.and_then(|usage| Some((usage.prompt_tokens, usage.cached_tokens?)));
        match told {
            Some((queries, hits)) => self.usage = self.usage.plus(Counters { queries, hits }),
            None => self.untold += 1,
        }
    }

    /// This run's tokens; `None` if an answer did not tell: a sum over some answers would look
    /// like a sum over all.
    pub(super) fn by_usage(&self) -> Option<Counters> {
        (self.untold == 0).then_some(self.usage)
    }

    /// Adds one measured answer.
    pub(super) fn count(&mut self, answer: &Answer) {
        if let Some(upstream) = answer.upstream() {
            let tokens = answer.usage.map_or(0, |usage| usage.prompt_tokens);
            self.upstreams.add(upstream, 1);
            self.tokens_by_upstream.add(upstream, tokens);
        }
        if let Some(failure) = &answer.failure {
            self.failed += 1;
            self.first_failure.get_or_insert_with(|| failure.to_string());
            return;
        }
        self.count_usage(answer.usage);
        self.first = self.first.or(answer.usage);
        self.ttft_ms.add(answer.timing.ttft.map(millis));
        self.tpot_ms.add(answer.tpot_ms());
        self.total_ms.add(Some(millis(answer.timing.total)));
    }

    /// The means so far.
    pub(super) fn averages(&self) -> Averages {
        Averages {
            requests: self.total_ms.count,
            ttft_ms: self.ttft_ms.get(),
            tpot_ms: self.tpot_ms.get(),
            total_ms: self.total_ms.get().unwrap_or_default(),
        }
    }
}

// === impl Mean ===

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.sum += value;
            self.count += 1;
        }
    }

    fn get(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}
