//! What the gateway tells: metrics, one access-log line per request, and its own log.

pub mod access_log;
mod epp_names;
mod kv_metrics;
pub mod log_level;
pub mod metrics;
pub mod reading;
mod registrar;
mod router_metrics;
mod scrape;
pub mod traces;

use std::io::{self, IsTerminal as _};

use thiserror::Error;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, reload};

use crate::config::{Log, LogFormat};

pub use access_log::{AccessLog, AccessLogWriter, Record};
pub use epp_names::{Decided, Ended, EppNames};
pub use log_level::LogLevel;
pub use metrics::{Held, Metrics};
pub use reading::{Reading, Readings};
pub use scrape::scrape;
pub use traces::Traces;

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

/// The crates whose every line we have written, so that none of them says what a client said.
const OURS: [&str; 5] = ["hearth", "gateway", "router", "kv_index", "loadtest"];

/// Sends the program's log to stderr, that of `log` (Pingora) included. Colours only on a terminal.
/// Gives the handle by which its level is changed later.
///
/// # Errors
/// The level cannot be read, or a log was set up before.
pub fn init_log(log: &Log) -> Result<LogLevel, LogError> {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    let (level, handle) = reload::Layer::new(EnvFilter::builder().parse(&log.level)?);
    let subscriber = tracing_subscriber::registry().with(level).with(filter_fn(may_be_logged));
    match log.format {
        LogFormat::Json => subscriber.with(lines.json()).try_init()?,
        LogFormat::Text => subscriber.with(lines).try_init()?,
    }
    Ok(LogLevel::of(handle))
}

/// Whether a line may be written whatever `log.level` says. At debug and trace Pingora and the HTTP
/// libraries print whole heads, `Authorization` and cookies included, and at trace bodies: beyond
/// info only our own crates are heard.
fn may_be_logged(line: &Metadata<'_>) -> bool {
    let root = line.target().split("::").next().unwrap_or_default();
    *line.level() <= Level::INFO || OURS.contains(&root)
}
