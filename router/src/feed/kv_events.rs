//! What pods say of their caches, heard from their own publishers.
//!
//! | File | Knows |
//! |---|---|
//! | `sequence`, `trust` | where a batch belongs, and what may be believed: pure |
//! | `progress` | whether an engine that says nothing has had something to say: pure |
//! | `sources` | where a pod's publishers are |
//! | `zmtp`, `frame` | the wire: ZeroMQ's, then vLLM's |
//! | `stream`, `replay`, `bind` | the live stream, the history, the port that pods dial |
//! | `task` | one pod's task: hears, asks, applies |
//! | `calibration`, `suspects` | whether what is predicted of the pod is what its engine finds |
//! | `counts`, `status` | what others may read of it |

mod bind;
mod calibration;
mod counts;
mod frame;
mod progress;
mod replay;
mod sequence;
mod sources;
mod status;
mod stream;
mod suspects;
mod task;
mod trust;
mod zmtp;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kv_index::{Applied, Event, Slot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use crate::pod::{KvPorts, PortsError};
pub(super) use bind::{Lanes, run as listen};
pub use calibration::{Compared, Outcome, Predictions};
pub use counts::{KvCount, KvCounts};
pub use sources::Target;
pub use status::{KvReport, KvStatus, SelfCheck};
pub use suspects::Suspect;
pub use trust::{Doubt, Trust};

use self::sources::SourcesError;
use super::{News, Voice};
use crate::pod::EngineHints;
use crate::story::story;
use crate::units::HumanDuration;

/// Who is told what pods hold: the index.
pub trait KvSink: fmt::Debug + Send + Sync {
    /// Something happened in this pod's cache; returns what became of its blocks. Called in order,
    /// by one task per pod.
    fn apply(&self, slot: Slot, event: &Event) -> Applied;
    /// Nothing is known of this pod any more. What comes after it is whole again.
    fn clear(&self, slot: Slot);
}

/// How pods' KV events are heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KvEventsSettings {
    /// Whether, and who dials whom.
    pub mode: Mode,
    /// Port of the pods' publishers, for pods that neither say it themselves (`/kv_event_sources`)
    /// nor have it in their annotation `hearth.dev/kv-events`.
    pub port: Option<u16>,
    /// Port of the pods' replay, for the same pods; without, no history can be had.
    pub replay_port: Option<u16>,
    /// Data-parallel ranks of these pods, each on the next ports.
    pub ranks: u16,
    /// Address of a listener for pods whose publishers dial: their `endpoint` is this gateway's
    /// address. None: no such listener.
    pub bind: Option<SocketAddr>,
    /// How often a pod that publishes nothing is asked again.
    pub refresh: HumanDuration,
    /// A stream that was silent for so long is checked by asking for its last batch again; of more than
    /// 300 pods after longer.
    pub idle: HumanDuration,
    /// Bound of opening a stream, and of each reply of a replay.
    pub timeout: HumanDuration,
    /// Batches of one rank that may wait, for a replay to end or for their task. More are dropped
    /// and asked for again.
    pub queue: usize,
}

/// Whether KV events are heard, and who dials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As each pod says; a pod that publishes nothing is known by what was sent to it.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// The gateway dials the pods.
    Connect,
    /// The pods dial the gateway.
    Bind,
}

/// What the feed of one pod works with.
#[derive(Clone, Debug)]
pub(super) struct PodEvents {
    pub(super) voice: Voice,
    pub(super) client: reqwest::Client,
    pub(super) settings: Arc<KvEventsSettings>,
    pub(super) sink: Arc<dyn KvSink>,
    pub(super) status: Arc<KvStatus>,
    pub(super) hints: watch::Receiver<EngineHints>,
    pub(super) lanes: Arc<Lanes>,
}

/// Ranks behind one address: more than any machine has accelerators.
const MOST_RANKS: u16 = 64;

/// A pod that cannot be asked yet is asked again after this.
const RETRY: Duration = Duration::from_secs(1);

// === impl KvEventsSettings ===

impl Default for KvEventsSettings {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            port: None,
            replay_port: None,
            ranks: 1,
            bind: None,
            refresh: HumanDuration::from_secs(30),
            idle: HumanDuration::from_secs(30),
            timeout: HumanDuration::from_secs(5),
            // A pod at 50 steps a second may be replayed for 20 s.
            queue: 1024,
        }
    }
}

impl KvEventsSettings {
    fn ports(&self) -> Option<KvPorts> {
        let publish = self.port?;
        Some(KvPorts { publish, replay: self.replay_port, ranks: self.ranks.max(1) })
    }
}

/// Hears one pod until the task is aborted. The first of several data-parallel ranks tells the pool of
/// the others, each of which is a pod of its own.
pub(super) async fn run(pod: PodEvents) {
    let (targets, target) = loop {
        let found = sources::find(&pod.voice, &pod.client, &pod.settings).await;
        let wait = match &found {
            Err(SourcesError::NoAnswer(_)) => RETRY,
            _ => pod.voice.quiet(pod.settings.refresh.get().max(RETRY)),
        };
        match found {
            Ok(targets) => {
                if let Some(target) = pod.voice.pick(&targets) {
                    break (targets.len(), target);
                }
            }
            Err(error) => {
                let name = &pod.voice.pod.name;
                tracing::debug!(pod = %name, error = story(&error), "the pod does not say where its KV events are");
            }
        }
        tokio::time::sleep(wait).await;
    };
    let ranks = u16::try_from(targets).unwrap_or(u16::MAX).min(MOST_RANKS);
    pod.status.set_ranks(ranks);
    let told = News::Ranks { slot: pod.voice.slot, ranks };
    if pod.voice.pod.rank.is_none() && ranks > 1 && pod.voice.tell(told).await.is_err() {
        return;
    }
    let (slot, of, room) = (pod.voice.slot, &pod.voice.pod, pod.settings.queue);
    let (_registered, lane) = pod.lanes.register(slot, of, &pod.status, room);
    task::run(pod, target, lane).await;
}

// === impl PodEvents ===

impl PodEvents {
    /// Its task is gone, in the middle of who knows what: of the pod no more is known than of one that
    /// tells nothing.
    pub(super) fn lost(&self) {
        self.status.set_trust(Trust::Approximate);
        self.sink.clear(self.voice.slot);
    }
}

// === impl Voice ===

impl Voice {
    /// Of a pod's publishers, one for each rank, this one's own.
    fn pick(&self, targets: &[Target]) -> Option<Target> {
        targets.get(usize::from(self.pod.rank.unwrap_or(0))).copied()
    }
}
