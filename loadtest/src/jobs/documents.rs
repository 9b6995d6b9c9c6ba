//! To come.
use super::{JobError, Out};
/// To come.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {}
/// To come.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// To come.
    pub shortfalls: Vec<String>,
}
/// To come.
pub async fn run(_o: &Options, _out: Out<'_>) -> Result<Outcome, JobError> {
    Ok(Outcome { shortfalls: Vec::new() })
}
