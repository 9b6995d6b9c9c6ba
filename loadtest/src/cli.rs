//! The command line of `loadtest`.

use clap::{Parser, Subcommand};

use tokio::runtime::Builder;

use crate::jobs::{Out, bench, cache_hit, documents, restart, stickiness};
use crate::{policies, saturate, simulator, upstream};

/// Simulated vLLM pods, and jobs that measure a gateway.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Pods that a client cannot tell from vLLM.
    Simulate(Box<simulator::cli::Args>),
    /// One prompt, many times: how much of it was not recomputed, and by how many pods.
    CacheHit(Box<cache_hit::Options>),
    /// Many documents, many sessions: the workload that tells routing policies apart.
    Documents(Box<documents::Options>),
    /// Latency and throughput at a given rate or concurrency.
    Bench(Box<bench::Options>),
    /// Sessions A, B, A: does A return to its pod?
    Stickiness(Box<stickiness::Options>),
    /// Pods restarted one by one under load: what did clients see?
    Restart(Box<restart::Options>),
    /// Routing policies side by side in virtual time: hours of traffic in seconds, no sockets.
    SimulatePolicies(policies::Options),
    /// The cheapest pods there can be, for the bench beside other proxies.
    #[command(hide = true)]
    Upstream(upstream::Args),
    /// A closed loop that costs little itself, for the same bench.
    #[command(hide = true)]
    Saturate(saturate::Args),
}

// === impl Command ===

impl Command {
    /// The runtime it wants: what stands beside a measured program keeps to one thread.
    #[must_use]
    pub fn runtime(&self) -> Builder {
        let mut builder = match self {
            Self::Upstream(_) | Self::Saturate(_) => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        builder.enable_all();
        builder
    }

    /// Runs it to its end and returns the sentences of the gates that do not hold.
    ///
    /// # Errors
    /// The pods could not start, or the job could not measure.
    pub async fn run(self, out: Out<'_>) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Simulate(args) => {
                simulator::cli::run(*args).await?;
                Vec::new()
            }
            Self::CacheHit(options) => cache_hit::run(&options, out).await?.shortfalls,
            Self::Documents(options) => documents::run(&options, out).await?.shortfalls,
            Self::Bench(options) => bench::run(&options, out).await?.shortfalls,
            Self::Stickiness(options) => stickiness::run(&options, out).await?.shortfalls,
            Self::Restart(options) => restart::run(&options, out).await?.shortfalls,
            Self::SimulatePolicies(options) => {
                policies::run(&options, out)?;
                Vec::new()
            }
            Self::Upstream(args) => {
                upstream::run(&args, out).await?;
                Vec::new()
            }
            Self::Saturate(args) => {
                saturate::run(&args, out).await?;
                Vec::new()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let parsed = Cli::try_parse_from(["loadtest", "cache-hit", "--min-hitrate", "90"]);
        assert!(parsed.expect_err("misspelt").to_string().contains("--min-hit-rate"));
    }
}
