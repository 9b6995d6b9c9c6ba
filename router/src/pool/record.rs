//! What happened to a pod, for the people who look after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::{Outcome, Pace, Traffic};

/// What happened to a pod.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Since when its health is what it is; none in a snapshot that nobody watches.
    pub since: Option<Instant>,
    /// The last failed request or probe.
    pub last_failure: Option<LastFailure>,
    /// Requests that failed since one was answered.
    pub failed_requests: u32,
    /// Probes that failed since a good one.
    pub failed_probes: u32,
    /// It fails requests and stays only because `pool.health.max_ejected_share` of the pods are out
    /// already.
    pub kept_by_share: bool,
    /// When it is probed next, unless a failure asks for it sooner.
    pub next_probe: Option<Instant>,
    /// What its requests came to.
    pub tally: Arc<Tally>,
    /// What has taken it out, while it is.
    pub out: Option<Out>,
    /// Requests that its engine runs at once; none before it was seen to queue.
    pub capacity: Option<u32>,
    /// Since when its engine says that it has nothing to do.
    pub idle_since: Option<Instant>,
    /// It terminates: when it will be gone, and since when we know.
    pub leaves: Option<(Instant, Instant)>,
    /// What its streams take between two tokens.
    pub pace: Arc<Pace>,
    /// Our requests at it.
    pub traffic: Arc<Traffic>,
}

/// What has taken a pod out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// Failed requests; it answers its probes.
    Requests,
    /// Nobody listens there any more, its engine has said that it is dead, or it was mute for long.
    Gone,
    /// Its probes were not answered, or not in time: it is frozen, cut off, or has no time for them.
    Mute,
    /// Its engine has requests and computes nothing, or its answers stall.
    Standstill,
}

/// A pod's last failure.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// In a few words: what a request met, or what the probe says.
    pub reason: Arc<str>,
    /// When.
    pub at: Instant,
}

/// Counts a pod's requests by what came of them.
#[derive(Debug, Default)]
pub struct Tally {
    answered: AtomicU64,
    busy: AtomicU64,
    failed: AtomicU64,
}

// === impl Tally ===

impl Tally {
    pub(super) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Answered => &self.answered,
            Outcome::Busy => &self.busy,
            Outcome::Failed | Outcome::Refused | Outcome::Stalled => &self.failed,
            Outcome::Silent => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts by their names in metrics: `answered`, `busy`, `failed`.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        [("answered", &self.answered), ("busy", &self.busy), ("failed", &self.failed)]
            .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}
