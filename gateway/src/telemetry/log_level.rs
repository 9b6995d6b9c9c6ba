//! The level of the program's log, changed while it runs.

use crate::config::check_level;
use thiserror::Error;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The level of the program's log. The default is that of a process whose log is somebody else's:
/// it cannot be changed.
#[derive(Clone, Debug, Default)]
pub struct LogLevel(Option<reload::Handle<EnvFilter, Registry>>);

/// Why the level was not changed.
#[derive(Debug, Error)]
pub enum LogLevelError {
    /// Neither a level nor a list of directives.
    #[error("{0}")]
    Directives(String),
    /// This process has not set up its log, or its log has ended.
    #[error("the log of this process cannot be changed")]
    NotOurs,
}

// === impl LogLevel ===

impl LogLevel {
    pub(super) fn of(handle: reload::Handle<EnvFilter, Registry>) -> Self {
        Self(Some(handle))
    }

    /// The directives in force; none if the log is not ours.
    #[must_use]
    pub fn get(&self) -> Option<String> {
        self.0.as_ref()?.with_current(EnvFilter::to_string).ok()
    }

    /// Puts other directives in force, as `log.level` takes them, until the process ends.
    ///
    /// # Errors
    /// See [`LogLevelError`].
    pub fn set(&self, directives: &str) -> Result<(), LogLevelError> {
        let handle = self.0.as_ref().ok_or(LogLevelError::NotOurs)?;
        check_level(directives).map_err(LogLevelError::Directives)?;
        let filter = EnvFilter::builder().parse(directives);
        let filter = filter.map_err(|error| LogLevelError::Directives(error.to_string()))?;
        handle.reload(filter).map_err(|_gone| LogLevelError::NotOurs)
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_level_that_is_set_is_in_force_and_a_wrong_one_changes_nothing() {
        let (layer, handle) = reload::Layer::new(EnvFilter::new("warn"));
        let level = LogLevel::of(handle);
        let subscriber = Registry::default().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(target: "router::decide", tracing::Level::TRACE));
            level.set("warn,router::decide=trace").expect("these are directives");
            assert!(tracing::enabled!(target: "router::decide", tracing::Level::TRACE));
            assert!(!tracing::enabled!(target: "router::pool", tracing::Level::INFO));
            for wrong in ["router=loud", "verbose", ""] {
                assert!(level.set(wrong).is_err(), "{wrong}");
            }
            assert_eq!(level.get().as_deref(), Some("router::decide=trace,warn"));
        });
    }

    #[test]
    fn nobody_changes_a_log_that_is_not_ours() {
        assert!(matches!(LogLevel::default().set("info"), Err(LogLevelError::NotOurs)));
        assert_eq!(LogLevel::default().get(), None);
    }
}
