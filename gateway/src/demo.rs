//! `hearth demo`: simulated pods, the gateway in front, and the cache-hit job through it.

use std::io::Write;
use std::process::ExitCode;

use crate::config::{Config, Loaded};

/// The settings that the demo starts from.
#[must_use]
pub fn config() -> Config {
    Config::default()
}

/// Runs the demo.
///
/// # Errors
/// Anything that keeps it from its end.
pub async fn run(_once: bool, _loaded: Loaded, _out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    anyhow::bail!("to come")
}
