//! What each source of pods last said, and whether its silence or its emptiness is believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::Source;

/// The state of every configured source.
#[derive(Debug)]
pub(super) struct Sources(BTreeMap<Source, State>);

#[derive(Debug, Default)]
struct State {
    synced_at: Option<Instant>,
    /// Since when it names no pod while its known ones answer.
    empty_since: Option<Instant>,
    trouble: Option<Arc<str>>,
}

// === impl Sources ===

impl Sources {
    pub(super) fn new(sources: &[Source]) -> Self {
        Self(sources.iter().map(|&source| (source, State::default())).collect())
    }

    /// The source has said what is so now.
    pub(super) fn synced(&mut self, source: Source, trouble: Option<Arc<str>>, now: Instant) {
        self.state(source).synced_at = Some(now);
        self.troubled(source, trouble);
    }

    /// The source cannot say (all of) what is so, or can again. Returns whether that is new.
    pub(super) fn troubled(&mut self, source: Source, trouble: Option<Arc<str>>) -> bool {
        let state = self.state(source);
        if state.trouble == trouble {
            return false;
        }
        match &trouble {
            Some(error) => {
                tracing::warn!(?source, %error, "discovery fails: what is known stays");
            }
            None => tracing::info!(?source, "discovery works again"),
        }
        state.trouble = trouble;
        true
    }

    /// The source names no pod although some answer: it is not believed until `keep` has passed.
    pub(super) fn doubt(&mut self, source: Source, now: Instant, keep: Duration) {
        let state = self.state(source);
        if state.empty_since.is_none() {
            state.empty_since = Some(now);
            tracing::warn!(
                ?source,
                ?keep,
                "discovery names no pod but known ones answer: they are kept (selector? rights?)"
            );
        }
    }

    /// The source is believed.
    pub(super) fn believe(&mut self, source: Source) {
        self.state(source).empty_since = None;
    }

    /// The sources that are not believed, and since when.
    pub(super) fn doubted(&self) -> impl Iterator<Item = (Source, Instant)> {
        self.0.iter().filter_map(|(source, state)| Some((*source, state.empty_since?)))
    }

    /// The pool is as old as its oldest source, and not there before each has spoken.
    pub(super) fn synced_at(&self) -> Option<Instant> {
        self.0.values().map(|state| state.synced_at).min().flatten()
    }

    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.0.values().find_map(|state| state.trouble.clone())
    }

    fn state(&mut self, source: Source) -> &mut State {
        self.0.entry(source).or_default()
    }
}
