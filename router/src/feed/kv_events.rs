//! What pods say of their caches, heard from their own publishers.
//!
//! | File | Knows |
//! |---|---|
//! | `sequence`, `trust` | where a batch belongs, and what may be believed: pure |
//! | `progress` | whether an engine that says nothing has had something to say: pure |
//! | `sources` | where a pod's publishers are |
//! | `zmtp`, `frame` | the wire: ZeroMQ's, then vLLM's |
//! | `stream`, `replay`, `bind` | the live stream, the history, the port that pods dial |
//! | `task` | one rank's task: hears, asks, applies |
//! | `calibration` | whether what is predicted of the pod is what its engine finds |
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
use tokio::task::JoinSet;

pub use crate::pod::{KvPorts, PortsError};
pub(super) use bind::{Lanes, run as listen};
pub use calibration::{Compared, Outcome, Predictions};
pub use counts::{KvCount, KvCounts};
pub use sources::Target;
pub use status::{KvReport, KvStatus, Verdict};
pub use trust::{Doubt, Trust};

use self::sources::SourcesError;
use super::Voice;
use crate::pod::EngineHints;
use crate::story::story;
use crate::units::HumanDuration;

/// Who is told what pods hold: the index.
pub trait KvSink: fmt::Debug + Send + Sync {
    /// Something happened in this holder's cache; returns what became of its blocks. Called in
    /// order, by one task per holder.
    fn apply(&self, holder: KvHolder, event: &Event) -> Applied;
    /// Nothing is known of this holder any more. What comes after it is whole again.
    fn clear(&self, holder: KvHolder);
}

/// One cache: a pod's, or one of its data-parallel ranks'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvHolder {
    /// The pod's slot.
    pub slot: Slot,
    /// The data-parallel rank behind its port; 0 if there is one only.
    pub rank: u32,
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
#[derive(Debug)]
pub(super) struct PodEvents {
    pub(super) voice: Voice,
    pub(super) client: reqwest::Client,
    pub(super) settings: Arc<KvEventsSettings>,
    pub(super) sink: Arc<dyn KvSink>,
    pub(super) status: Arc<KvStatus>,
    pub(super) hints: watch::Receiver<EngineHints>,
    pub(super) lanes: Arc<Lanes>,
}

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

/// Hears one pod until the task is aborted. The ranks' tasks are its own and end with it.
pub(super) async fn run(pod: PodEvents) {
    let targets = loop {
        let found = sources::find(&pod.voice, &pod.client, &pod.settings).await;
        let wait = match &found {
            Err(SourcesError::NoAnswer(_)) => RETRY,
            _ => pod.voice.quiet(pod.settings.refresh.get().max(RETRY)),
        };
        match found {
            Ok(targets) if !targets.is_empty() => break targets,
            Ok(_) => {}
            Err(error) => {
                let name = &pod.voice.pod.name;
                tracing::debug!(pod = %name, error = story(&error), "the pod does not say where its KV events are");
            }
        }
        tokio::time::sleep(wait).await;
    };
    pod.status.set_ranks(targets.len());
    let sizes = (targets.len(), pod.settings.queue);
    let (_registered, lanes) =
        pod.lanes.register(pod.voice.slot, &pod.voice.pod, &pod.status, sizes);
    let mut tasks = JoinSet::new();
    for ((number, target), lane) in (0..).zip(&targets).zip(lanes) {
        let rank = task::Rank {
            voice: pod.voice.clone(),
            rank: number,
            ranks: targets.len(),
            settings: Arc::clone(&pod.settings),
            client: pod.client.clone(),
            sink: Arc::clone(&pod.sink),
            status: Arc::clone(&pod.status),
            hints: pod.hints.clone(),
        };
        tasks.spawn(task::run(rank, *target, Some(lane)));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(pod = %pod.voice.pod.name, %error, "the task of a pod's KV events panicked");
        }
    }
}
