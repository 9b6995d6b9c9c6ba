//! `loadtest documents`: many documents, several sessions about each, caches that hold only some.
//!
//! Unlike `cache-hit`, whose score is arithmetic, this workload tells routing policies apart (see
//! [`crate::workload::DocumentsShape`]). Several gateways, one per policy, can be run one after
//! another and printed side by side; give each its own fresh pods.

mod options;
mod record;
mod session;

pub use options::{NamedTarget, Options};

use super::{JobError, Out, above, below, epoch_s};
use crate::client::{Answer, Counters, millis};
use crate::report::{Latency, LatencySummary, Tally, milliseconds, table};
use crate::workload::mix;

/// All gateways.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One entry per gateway, in the order given.
    pub targets: Vec<TargetOutcome>,
    /// One sentence per gate that the *first* gateway does not hold; empty is success. The others
    /// are there to be compared with.
    pub shortfalls: Vec<String>,
}

/// One gateway.
#[derive(Clone, Debug)]
pub struct TargetOutcome {
    /// Its name.
    pub name: String,
    /// Prompt tokens, and those of them found cached, by the answers' `usage`.
    pub tokens: Counters,
    /// Answered requests per upstream.
    pub requests: Tally,
    /// Prompt tokens per upstream.
    pub prompt_tokens: Tally,
    /// Pods that the load is spread over, idle ones included.
    pub pods: usize,
    /// Time to first token.
    pub ttft: LatencySummary,
    /// Requests that failed.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
}

/// Adds up answers.
#[derive(Debug, Default)]
struct Sums {
    tokens: Counters,
    requests: Tally,
    prompt_tokens: Tally,
    ttft: Latency,
    failed: u64,
    first_failure: Option<String>,
}

/// Runs the job against every gateway.
///
/// # Errors
/// An option cannot be honoured, or the output cannot be written.
pub async fn run(options: &Options, out: Out<'_>) -> Result<Outcome, JobError> {
    run_at(options, epoch_s(), out).await
}

/// [`run`], with the texts of the given second.
///
/// # Errors
/// As [`run`].
pub async fn run_at(options: &Options, epoch_s: u64, out: Out<'_>) -> Result<Outcome, JobError> {
    options.check()?;
    let mut records = options.records.as_deref().map(record::create).transpose()?;
    let mut targets = Vec::new();
    for (index, target) in (0u64..).zip(options.named_targets()) {
        writeln!(
            out,
            "{}: {} documents of {} tokens, {} sessions each, 2 turns, {} at once, through {}",
            target.name,
            options.documents,
            options.document_tokens,
            options.sessions,
            options.concurrency,
            target.url
        )?;
        let run = mix([options.seed, epoch_s, index]);
        let sums = session::play(options, &target, run, &mut records).await?;
        targets.push(sums.finish(target.name, options.pods.unwrap_or(0)));
    }
    let shortfalls = targets.first().map(|first| judge(options, first)).unwrap_or_default();
    print(out, &targets)?;
    shortfalls.iter().try_for_each(|shortfall| writeln!(out, "❌ {shortfall}"))?;
    Ok(Outcome { targets, shortfalls })
}

fn judge(options: &Options, target: &TargetOutcome) -> Vec<String> {
    let name = &target.name;
    let mut shortfalls = Vec::new();
    if let Some(reason) = &target.first_failure {
        let failed = target.failed;
        shortfalls.push(format!("{failed} requests of {name} failed, the first with: {reason}"));
    }
    let hit_rate = target.tokens.hit_rate_percent();
    shortfalls.extend(below(&format!("hit rate (%) of {name}"), hit_rate, options.min_hit_rate));
    let ratio = target.load_ratio();
    shortfalls.extend(above(&format!("max/mean load of {name}"), ratio, options.max_load_ratio));
    shortfalls
}

fn print(out: Out<'_>, targets: &[TargetOutcome]) -> std::io::Result<()> {
    let rows = targets.iter().map(|target| {
        [
            target.name.clone(),
            format!("{:.1}", target.tokens.hit_rate_percent()),
            format!("{:.2}", target.requests.load(target.pods).max_over_mean()),
            format!("{:.2}", target.prompt_tokens.load(target.pods).max_over_mean()),
            target.requests.iter().map(|(_pod, n)| n.to_string()).collect::<Vec<_>>().join("/"),
            milliseconds(target.ttft.p50_ms),
            milliseconds(target.ttft.p99_ms),
            target.failed.to_string(),
        ]
    });
    let headings = [
        "policy",
        "hit %",
        "max/mean requests",
        "max/mean tokens",
        "requests per pod",
        "TTFT p50 ms",
        "TTFT p99 ms",
        "failed",
    ];
    writeln!(out, "{}", table(headings, rows))
}

// === impl TargetOutcome ===

impl TargetOutcome {
    /// Largest over mean load, by requests or by prompt tokens, whichever is worse.
    pub fn load_ratio(&self) -> f64 {
        let ratio = |tally: &Tally| tally.load(self.pods).max_over_mean();
        ratio(&self.requests).max(ratio(&self.prompt_tokens))
    }
}

// === impl Sums ===

impl Sums {
    fn count(&mut self, answer: &Answer) {
        let problem = match (&answer.failure, answer.usage) {
            (Some(failure), _) => Some(failure.to_string()),
            (None, Some(usage)) if usage.cached_tokens.is_some() => None,
            (None, _) => Some("the answer does not tell its cached tokens".to_owned()),
        };
        if let Some(problem) = problem {
            self.failed += 1;
            self.first_failure.get_or_insert(problem);
            return;
        }
        let usage = answer.usage.unwrap_or_default();
        let hits = usage.cached_tokens.unwrap_or_default();
        self.tokens = self.tokens.plus(Counters { queries: usage.prompt_tokens, hits });
        let upstream = answer.upstream().unwrap_or("unknown");
        self.requests.add(upstream, 1);
        self.prompt_tokens.add(upstream, usage.prompt_tokens);
        if let Some(ttft) = answer.timing.ttft {
            self.ttft.record_ms(millis(ttft));
        }
    }

    fn finish(self, name: String, pods: u32) -> TargetOutcome {
        let pods = usize::try_from(pods).unwrap_or(usize::MAX);
        TargetOutcome {
            name,
            tokens: self.tokens,
            pods: self.requests.len().max(pods),
            requests: self.requests,
            prompt_tokens: self.prompt_tokens,
            ttft: self.ttft.summary(),
            failed: self.failed,
            first_failure: self.first_failure,
        }
    }
}

#[cfg(test)]
mod tests;
