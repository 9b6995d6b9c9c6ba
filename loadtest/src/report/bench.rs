//! A bench's report: samples in, percentiles out, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use serde::Serialize;
use tokio::time::Instant;

use super::{Latency, LatencySummary, milliseconds, table};
use crate::client::Answer;

/// All stages of one bench.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Base URL that was measured.
    pub target: String,
    /// Model that was asked for.
    pub model: String,
    /// How requests were paced.
    pub rate_type: String,
    /// Whether answers were streamed; if not, TTFT is the first byte of a finished answer.
    pub stream: bool,
    /// One entry per stage.
    pub stages: Vec<StageReport>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageReport {
    /// Its pace.
    pub name: String,
    /// Requests per second wanted; absent in a closed loop.
    pub wanted_requests_per_s: Option<f64>,
    /// From the first request to the last answer, in seconds.
    pub duration_s: f64,
    /// Complete answers.
    pub completed: u64,
    /// Failed requests by kind.
    pub errors: BTreeMap<String, u64>,
    /// Requests that were due and never sent, for want of room.
    pub unsent: u64,
    /// Complete answers per second.
    pub requests_per_s: f64,
    /// Generated tokens per second.
    pub output_tokens_per_s: f64,
    /// Prompt tokens of complete answers.
    pub prompt_tokens: u64,
    /// Of these, tokens found in a prefix cache.
    pub cached_tokens: u64,
    /// Generated tokens of complete answers.
    pub output_tokens: u64,
    /// From when the request was due to its first content token.
    pub ttft: LatencySummary,
    /// Per request: time per output token after the first.
    pub tpot: LatencySummary,
    /// Per gap: time between two content chunks.
    pub itl: LatencySummary,
    /// From when the request was due to its last byte.
    pub total: LatencySummary,
    /// From when the request was due to when it was sent: how late this program was.
    pub send_delay: LatencySummary,
}

/// A stage's samples, as histograms.
#[derive(Clone, Debug, Default)]
pub struct StageStats {
    name: String,
    wanted_requests_per_s: Option<f64>,
    errors: BTreeMap<String, u64>,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    ttft: Latency,
    tpot: Latency,
    itl: Latency,
    total: Latency,
    send_delay: Latency,
    completed: u64,
}

// === impl StageStats ===

impl StageStats {
    /// No samples yet.
    pub fn new(name: &str, wanted_requests_per_s: Option<f64>) -> Self {
        Self { name: name.to_owned(), wanted_requests_per_s, ..Self::default() }
    }

    /// Adds one request that was due at `due`. Failed ones count as errors and nowhere else: a
    /// refusal is quick, and would make the percentiles look good.
    pub fn record(&mut self, due: Instant, answer: &Answer) {
        let delay = answer.timing.sent_at.saturating_duration_since(due);
        self.send_delay.record(delay);
        if let Some(failure) = &answer.failure {
            *self.errors.entry(failure.kind()).or_default() += 1;
            return;
        }
        self.completed += 1;
        self.total.record(delay + answer.timing.total);
        if let Some(ttft) = answer.timing.ttft {
            self.ttft.record(delay + ttft);
        }
        if let Some(tpot_ms) = answer.tpot_ms() {
            self.tpot.record_ms(tpot_ms);
        }
        answer.timing.gaps.iter().for_each(|gap| self.itl.record(*gap));
        let usage = answer.usage.unwrap_or_default();
        self.prompt_tokens += usage.prompt_tokens;
        self.cached_tokens += usage.cached_tokens.unwrap_or_default();
        self.output_tokens += usage.completion_tokens;
    }

    /// The report of a stage that took `duration` and left `unsent` requests behind.
    pub fn finish(self, duration: Duration, unsent: u64) -> StageReport {
        let duration_s = duration.as_secs_f64();
        let per_s = |count: u64| if duration_s > 0.0 { count as f64 / duration_s } else { 0.0 };
        StageReport {
            name: self.name,
            wanted_requests_per_s: self.wanted_requests_per_s,
            duration_s,
            completed: self.completed,
            errors: self.errors,
            unsent,
            requests_per_s: per_s(self.completed),
            output_tokens_per_s: per_s(self.output_tokens),
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            output_tokens: self.output_tokens,
            ttft: self.ttft.summary(),
            tpot: self.tpot.summary(),
            itl: self.itl.summary(),
            total: self.total.summary(),
            send_delay: self.send_delay.summary(),
        }
    }
}

// === impl BenchReport ===

impl BenchReport {
    /// The report as indented JSON, with a final newline.
    pub fn to_json(&self) -> String {
        let mut json =
            serde_json::to_string_pretty(self).expect("strings and numbers always serialize");
        json.push('\n');
        json
    }

    /// One sentence per stage that has errors or unsent requests.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for stage in &self.stages {
            if !stage.errors.is_empty() {
                let kinds = stage.errors.iter().map(|(kind, count)| format!("{count} x {kind}"));
                let kinds = kinds.collect::<Vec<_>>().join(", ");
                problems.push(format!("stage {} had errors: {kinds}", stage.name));
            }
            if stage.unsent > 0 {
                problems.push(format!(
                    "stage {} left {} requests unsent: raise --max-concurrency or lower --rate",
                    stage.name, stage.unsent
                ));
            }
        }
        problems
    }
}

/// The report for people.
pub fn bench_table(report: &BenchReport) -> Table {
    let trio = |summary: &LatencySummary| {
        [summary.p50_ms, summary.p95_ms, summary.p99_ms].map(milliseconds).join(" / ")
    };
    let rows = report.stages.iter().map(|stage| {
        [
            stage.name.clone(),
            stage.completed.to_string(),
            stage.errors.values().sum::<u64>().to_string(),
            format!("{:.2}", stage.requests_per_s),
            format!("{:.1}", stage.output_tokens_per_s),
            format!("{:.1}", super::percent(stage.cached_tokens, stage.prompt_tokens)),
            trio(&stage.ttft),
            trio(&stage.tpot),
            trio(&stage.total),
        ]
    });
    let headings = [
        "stage",
        "ok",
        "errors",
        "req/s",
        "tok/s",
        "cached %",
        "TTFT ms p50 / p95 / p99",
        "TPOT ms p50 / p95 / p99",
        "total ms p50 / p95 / p99",
    ];
    table(headings, rows)
}

#[cfg(test)]
mod tests;
