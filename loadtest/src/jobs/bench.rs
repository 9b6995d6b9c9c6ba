//! `loadtest bench`: latency and throughput at a given rate or concurrency.
//!
//! Rate types are those of guidellm. In an open loop every latency counts from the moment the
//! request was *due*, so a gateway that stalls cannot hide the requests it kept from being sent
//! ("coordinated omission").

mod drive;
mod options;
mod plan;
mod prompts;

pub use options::{Options, RateType};

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{JobError, Out, epoch_s};
use crate::client::Client;
use crate::report::{BenchReport, StageReport, StageStats, bench_table};
use crate::workload::{TokenRatio, mix};
use drive::{Limits, Sent, drive};
use plan::{Stage, sweep_rates};
use prompts::Prompts;

/// What the job found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All stages.
    pub report: BenchReport,
    /// One sentence per gate that does not hold; empty is success.
    pub shortfalls: Vec<String>,
}

/// What every stage uses.
struct Bench<'a> {
    options: &'a Options,
    client: Client,
    prompts: Prompts,
}

/// Runs the job; with `--output` the report is also written as JSON.
///
/// # Errors
/// An option cannot be honoured, a worker panicked, or the output cannot be written.
pub async fn run(options: &Options, out: Out<'_>) -> Result<Outcome, JobError> {
    options.check()?;
    let client = options.target.client()?;
    let ratio = TokenRatio::measure(&client, &options.target.model_id).await;
    let prompts = Prompts::new(options, ratio, mix([options.seed, epoch_s()]));
    writeln!(
        out,
        "{} against {}: {} prompt tokens and {} output tokens wanted",
        options.rate_type.name(),
        client.base_url(),
        options.prompt_tokens,
        options.output_tokens
    )?;
    let target = client.base_url().to_owned();
    let stages = Bench { options, client, prompts }.run_stages().await?;
    let report = BenchReport {
        target,
        model: options.target.model_id.clone(),
        rate_type: options.rate_type.name().to_owned(),
        stream: !options.no_stream,
        stages,
    };
    writeln!(out, "{}", bench_table(&report))?;
    let shortfalls = report.problems();
    shortfalls.iter().try_for_each(|problem| writeln!(out, "❌ {problem}"))?;
    if let Some(path) = &options.output {
        std::fs::write(path, report.to_json())?;
        writeln!(out, "The report is in {}", path.display())?;
    }
    Ok(Outcome { report, shortfalls })
}

// === impl Bench ===

impl Bench<'_> {
    async fn run_stages(&self) -> Result<Vec<StageReport>, JobError> {
        let options = self.options;
        let mut reports = Vec::new();
        for stage in plan::stages(options) {
            reports.push(self.run_stage(stage, reports.len()).await?);
        }
        if options.rate_type == RateType::Sweep {
            // The first two stages were one at a time and as many as possible.
            let between =
                |index: usize| reports.get(index).map_or(0.0, |report| report.requests_per_s);
            for rate in sweep_rates(between(0), between(1), options.sweep_steps) {
                let stage = Stage::constant(rate);
                reports.push(self.run_stage(stage, reports.len()).await?);
            }
        }
        Ok(reports)
    }

    async fn run_stage(&self, stage: Stage, number: usize) -> Result<StageReport, JobError> {
        let options = self.options;
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let limits = Limits {
            duration: Duration::from_secs(options.max_seconds),
            requests: options.max_requests.unwrap_or(u64::MAX),
            in_flight: stage.in_flight(options.max_concurrency),
        };
        let progress = progress(&stage.name, options);
        let mut stats = StageStats::new(&stage.name, stage.rate());
        let started = tokio::time::Instant::now();
        let deadline = options.target.deadline();
        let unsent = drive(
            stage.schedule(),
            limits,
            |index| {
                let call = self.prompts.call(number, index);
                let client = self.client.clone();
                async move { client.send(&call, deadline).await }
            },
            |sent: Sent| {
                stats.record(sent.due, &sent.answer);
                progress.inc(1);
            },
        )
        .await?;
        progress.finish_and_clear();
        Ok(stats.finish(started.elapsed(), unsent))
    }
}

/// A bar on a terminal, nothing anywhere else.
fn progress(stage: &str, options: &Options) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {elapsed} {wide_bar} {pos} done, {per_sec}");
    let bar = match options.max_requests {
        Some(requests) => ProgressBar::new(requests),
        None => ProgressBar::no_length(),
    };
    bar.with_style(style.expect("the template is well-formed")).with_prefix(stage.to_owned())
}

#[cfg(test)]
mod tests;
