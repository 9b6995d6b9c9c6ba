//! The pods that exist, as one immutable snapshot that one task publishes.
//!
//! Reading is [`Pool::snapshot`]; what requests saw of a pod goes back by [`Pool::report`]. The
//! registry and the health rules are pure; the task feeds them time and events.

mod capacity;
mod handle;
mod health;
mod hooks;
mod known;
mod pace;
mod ranks;
mod record;
mod registry;
mod settings;
mod sources;
mod standing;
mod task;

use std::sync::Arc;

use kv_index::Slot;
use tokio::time::Instant;

use crate::feed::kv_events::KvStatus;

pub(crate) use crate::pod::DEFAULT_BLOCK_TOKENS;
pub use crate::pod::{EngineHints, ModelCard, Pod, Role, Traffic, Visit};
pub use handle::{CordonError, Failures, Pool};
pub use health::HealthSettings;
pub use hooks::{Hooks, SlotHook};
pub use pace::Pace;
pub use record::{LastFailure, Out, Record, Tally};
pub use settings::PoolSettings;
pub use task::{PoolGuard, StartError, start, start_with_events};

use handle::Shared;

/// Whether a pod may get traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet, or not Ready for Kubernetes: no traffic.
    Unproven,
    /// Probed and not failing.
    Ready,
    /// Failed too often; no traffic until a probe succeeds.
    Ejected,
}

/// A pod with all that is known of it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its identity.
    pub pod: Pod,
    /// Its dense number in the KV index and in the bookings.
    pub slot: Slot,
    /// Whether it may get traffic.
    pub health: Health,
    /// Whether somebody has taken it out by hand: it gets no new requests, however well it is.
    pub is_cordoned: bool,
    /// What it serves.
    pub models: Arc<[ModelCard]>,
    /// What its metrics last said.
    pub engine: EngineHints,
    /// What it tells of its cache, and how far that can be believed: shared with the feed, so
    /// always current.
    pub kv_events: Arc<KvStatus>,
    /// What happened to it.
    pub record: Record,
}

/// Everything that routing reads, published whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// All known pods, in a stable order.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Counts publications.
    pub generation: u64,
    /// When discovery last said that this set is current; none before the first list.
    pub synced_at: Option<Instant>,
    /// A re-list named no pod while known pods answered probes: they are kept, for a while.
    pub kept_because_empty: bool,
    /// Why discovery fails, while it does.
    pub discovery_error: Option<Arc<str>>,
}

/// What a request saw of a pod: passive health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered (any 2xx or 4xx: a client's mistake never blames a pod).
    Answered,
    /// It is busy (429, 503 from the engine): not sick.
    Busy,
    /// Reset, timed out, or a 5xx that says the engine is gone.
    Failed,
    /// Nobody listens there: its process is gone, and with it all that its cache held.
    Refused,
    /// It fell silent for longer than it ever takes.
    Stalled,
    /// It has said nothing for a while. No failure, and a reason to look.
    Silent,
}

// === impl Health ===

impl Health {
    /// The word for it, in metrics, pages and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Ready => "ready",
            Self::Ejected => "ejected",
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Whether requests may be sent to it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health == Health::Ready && !self.is_cordoned
    }

    /// Whether it can answer requests: a pod that only prefills cannot.
    #[must_use]
    pub fn can_answer(&self) -> bool {
        self.is_ready() && self.pod.role != Role::Prefill
    }

    /// Whether it is better than no pod at all: it failed requests and answers its probes, or does not
    /// answer those in time. On a starved machine nobody does, and what is late is not lost.
    #[must_use]
    pub fn may_answer_at_need(&self) -> bool {
        let is_out = matches!(self.record.out, Some(Out::Requests | Out::Mute));
        let is_for_it = self.health == Health::Ejected && self.pod.role != Role::Prefill;
        is_out && is_for_it && !self.is_cordoned
    }

    /// Whether its `/v1/models` lists this name.
    #[must_use]
    pub fn serves(&self, model: &str) -> bool {
        self.models.iter().any(|card| &*card.id == model)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// The pods that may get traffic.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.iter().filter(|endpoint| endpoint.is_ready())
    }

    /// The pods that can answer; where there are none, those that are better than none.
    pub fn answering(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let is_need = !self.endpoints.iter().any(|endpoint| endpoint.can_answer());
        let may = if is_need { Endpoint::may_answer_at_need } else { Endpoint::can_answer };
        self.endpoints.iter().filter(move |endpoint| may(endpoint))
    }
}
