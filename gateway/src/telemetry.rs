//! What the gateway tells: metrics, one access-log line per request, and its own log.

pub mod access_log;
pub mod kv_metrics;
pub mod metrics;
pub mod reading;
pub mod router_metrics;

use std::io::{self, IsTerminal as _};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

pub use access_log::{AccessLog, AccessLogWriter, Record};
pub use kv_metrics::KvCollector;
pub use metrics::{Held, Metrics};
pub use reading::{Reading, Readings};
pub use router_metrics::RouterCollector;

/// Why the program's log could not be set up.
#[derive(Debug, Error)]
pub enum LogError {
    /// The level is neither a level nor a list of directives.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Something has set up a log before.
    #[error("the log is set up twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends the program's log to stderr, that of `log` (Pingora) included. Colours only on a terminal.
///
/// # Errors
/// The level cannot be read, or a log was set up before.
pub fn init_log(log: &Log) -> Result<(), LogError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(&log.level)?)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Json => builder.json().finish().try_init()?,
        LogFormat::Text => builder.finish().try_init()?,
    }
    Ok(())
}
