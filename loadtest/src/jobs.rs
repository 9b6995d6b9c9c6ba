//! The jobs: each drives a gateway by URL, prints what it measured, and judges it by its gates.
//!
//! Every job is `run(&Options, &mut (dyn Write + Send)) -> Result<Outcome, JobError>`. An `Err` says
//! that the job could not measure; a gate that does not hold is a line in the outcome's
//! `shortfalls`. Both make the program exit 1.

pub mod bench;
pub mod cache_hit;
pub mod documents;
#[cfg(test)]
mod fake;
pub mod restart;
pub mod stickiness;
mod target;

pub use target::TargetOptions;

use crate::client::{ClientError, CountersError};

/// What a job prints to.
pub type Out<'a> = &'a mut (dyn std::io::Write + Send);

/// Why a job could not measure.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A URL or header is wrong, or a plain GET failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The engines' counters cannot be read.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// The gateway does not answer chat.
    #[error("{path} did not return 200 (got {got}): is a model pod ready behind {gateway}?")]
    Unhealthy {
        /// What was asked.
        path: &'static str,
        /// Status or cause.
        got: String,
        /// Whom.
        gateway: String,
    },
    /// Pods were named, and none is healthy.
    #[error("no pod of --pod-urls answers GET /health with 200")]
    NoPods,
    /// An option's value cannot be used.
    #[error("{0}")]
    Option(String),
    /// The output cannot be written.
    #[error("the result cannot be written: {0}")]
    Write(#[from] std::io::Error),
    /// A worker task panicked: a bug in the job.
    #[error("a worker of this job panicked: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// `measured < wanted` as the sentence a shortfall is told in; `None` when it holds or is not asked.
pub(crate) fn below(what: &str, measured: f64, wanted: Option<f64>) -> Option<String> {
    let wanted = wanted.filter(|wanted| measured < *wanted)?;
    Some(format!("{what} is {measured:.1}, below the required {wanted}"))
}

/// The other way round.
pub(crate) fn above(what: &str, measured: f64, wanted: Option<f64>) -> Option<String> {
    let wanted = wanted.filter(|wanted| measured > *wanted)?;
    Some(format!("{what} is {measured:.2}, above the allowed {wanted}"))
}

/// Whole seconds since 1970, for names that tell runs apart. The only clock a job reads for a name.
pub(crate) fn epoch_s() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
