//! Options of `loadtest simulate-policies`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use super::rules::Rule;
use super::scenarios::{self, Source};

/// Options of `loadtest simulate-policies`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Conversations come from this trace, in Mooncake's format. Default: made, with the statistics
    /// of Mooncake's conversation trace.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,

    /// Only these workloads; repeat.
    #[arg(long = "workload", value_name = "NAME", value_parser = PossibleValuesParser::new(scenarios::names()))]
    pub workloads: Vec<String>,

    /// Only these policies; repeat.
    #[arg(long = "policy", value_name = "NAME")]
    pub policies: Vec<Rule>,

    /// `warm`, and `warm` without each of its terms.
    #[arg(long, conflicts_with = "policies")]
    pub ablate: bool,

    /// Of everything that is made, and of the routers' dice.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// The share of each long workload that is played.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub share: f64,

    /// One JSON object a workload instead of tables.
    #[arg(long)]
    pub json: bool,
}

// === impl Options ===

impl Options {
    pub(super) fn source(&self) -> Source<'_> {
        Source { trace: self.trace.as_deref(), seed: self.seed, share: self.share }
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        match (self.ablate, &*self.policies) {
            (true, _) => Rule::ablations(),
            (false, []) => Rule::all(),
            (false, some) => some.to_vec(),
        }
    }
}
