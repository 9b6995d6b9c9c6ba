//! `loadtest simulate-policies`: routing policies side by side in virtual time.
//!
//! Hearth's own router decides, books and learns; the pods are the simulator's rules in blocks; the
//! clock is a number. No sockets, no tasks: hours of traffic in seconds, and the same seed gives the
//! same table.
//!
//! | File | Knows |
//! |---|---|
//! | `traffic` | who asks what when |
//! | `fleet`, `scenarios` | which pods and gateways it meets |
//! | `rules` | the policies: Hearth's and the others' |
//! | `gateways`, `pod`, `world` | one run: the router, the engines, the loop |
//! | `score` | what came of it, and what one shared cache would have reused |

mod fleet;
mod gateways;
mod options;
mod pod;
mod rules;
mod scenarios;
mod score;
mod traffic;
mod world;

use serde::Serialize;

pub use fleet::{Fleet, Rates, Slo};
pub use options::Options;
pub use pod::{Job, Output, Pod};
pub use rules::{Pods, Rule, Term, UnknownRule};
pub use scenarios::{Scenario, Source};
pub use score::{Percentiles, Score};
pub use traffic::{Due, Request, TraceError, Traffic};
pub use world::{Came, play};

use crate::jobs::Out;
use crate::report::{milliseconds, table};

/// One workload's table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The workload.
    pub workload: &'static str,
    /// Its requests.
    pub requests: usize,
    /// One entry per policy, in the order asked for.
    pub policies: Vec<Score>,
}

/// Why nothing could be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The output.
    #[error("the result cannot be written: {0}")]
    Write(#[from] std::io::Error),
    /// The output, as JSON.
    #[error("the result cannot be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// Plays every workload under every policy and prints a table for each.
///
/// # Errors
/// The trace cannot be used, or the output cannot be written.
pub fn run(options: &Options, out: Out<'_>) -> Result<Vec<Outcome>, SimulateError> {
    let mut outcomes = Vec::new();
    for scenario in scenarios::make(&options.source(), &options.workloads)? {
        let outcome = simulate(&scenario, &options.rules(), options.seed);
        if options.json {
            serde_json::to_writer(&mut *out, &outcome)?;
            writeln!(out)?;
        } else {
            print(&outcome, out)?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

/// Plays one workload under these policies.
pub fn simulate(scenario: &Scenario, rules: &[Rule], seed: u64) -> Outcome {
    let Scenario { name, traffic, fleet } = scenario;
    let score = |rule: &Rule| {
        let came = play(traffic, fleet, *rule, seed);
        Score::of(rule.to_string(), traffic, fleet, &came)
    };
    let policies = rules.iter().map(score).collect();
    Outcome { workload: name, requests: traffic.requests.len(), policies }
}

fn print(outcome: &Outcome, out: Out<'_>) -> std::io::Result<()> {
    let rows = outcome.policies.iter().map(|score| {
        [
            score.policy.clone(),
            format!("{:.3}", score.reuse),
            format!("{:.3}", score.of_shared),
            milliseconds(score.ttft_ms.p50),
            milliseconds(score.ttft_ms.p90),
            milliseconds(score.ttft_ms.p99),
            format!("{:.2}", score.ttft_error),
            format!("{:.3}", score.goodput),
            format!("{:.2}", score.max_over_mean),
            format!("{:.2}", score.work_max_over_mean),
        ]
    });
    let headings = [
        "policy",
        "reuse",
        "of shared cache's",
        "TTFT p50 ms",
        "p90 ms",
        "p99 ms",
        "TTFT error",
        "goodput /s",
        "max/mean requests",
        "max/mean computed",
    ];
    writeln!(out, "{}: {} requests", outcome.workload, outcome.requests)?;
    writeln!(out, "{}\n", table(headings, rows))
}
