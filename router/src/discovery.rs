//! Which pods there are: from a list, or from Kubernetes.
//!
//! A source says its whole set again and again; the pool compares. Nothing is patched by hope.

mod fixed;
mod kube;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use self::fixed::{AddressError, StaticEndpoint};
pub use self::kube::KubernetesSettings;

use crate::pod::Pod;

/// Where pods come from. Both sources may be used at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoverySettings {
    /// Pods by address, for machines without Kubernetes.
    pub endpoints: Vec<StaticEndpoint>,
    /// Pods by label, in Kubernetes.
    pub kubernetes: KubernetesSettings,
}

/// Who named a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The configured list.
    Fixed,
    /// The API server, by label.
    Kubernetes,
    /// The API server, by the InferencePool of this place in the settings.
    InferencePool(u16),
}

/// A pod as its source sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) pod: Pod,
    /// Whether its source lets it have traffic. A pod that is not Ready for a moment keeps its
    /// cache, so it stays known.
    pub(crate) serving: bool,
    /// It terminates, and has so long from when that was said.
    pub(crate) grace: Option<Duration>,
}

/// All pods that a source names now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desired {
    pub(crate) pods: Vec<Sighting>,
    /// What keeps the source from seeing more.
    pub(crate) trouble: Option<Arc<str>>,
    /// The source was told that a pod went; otherwise it has listed what there is.
    pub(crate) by_removal: bool,
}

/// What a source says.
#[derive(Debug)]
pub(crate) enum Report {
    /// All pods that it names now, whole: what is not in it is gone.
    Desired(Desired),
    /// What it said last is still so.
    Alive,
    /// It cannot say.
    Lost(Arc<str>),
}

/// The way from a source to the pool's task.
#[derive(Clone, Debug)]
struct Herald {
    source: Source,
    reports: mpsc::Sender<(Source, Report)>,
}

/// The pool's task has ended.
#[derive(Debug)]
struct PoolEnded;

/// How often host names are resolved again: what Kubernetes' DNS gives its answers to live.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);

// === impl DiscoverySettings ===

impl DiscoverySettings {
    pub(crate) fn sources(&self) -> Vec<Source> {
        let fixed = (!self.endpoints.is_empty()).then_some(Source::Fixed);
        let kubernetes = self.kubernetes.selections().into_iter().map(|(source, _)| source);
        fixed.into_iter().chain(kubernetes).collect()
    }
}

/// Starts the configured sources among `tasks`.
pub(crate) fn spawn(
    settings: DiscoverySettings,
    reports: &mpsc::Sender<(Source, Report)>,
    tasks: &mut JoinSet<()>,
) {
    let herald = |source| Herald { source, reports: reports.clone() };
    if !settings.endpoints.is_empty() {
        tasks.spawn(fixed::run(settings.endpoints, RESOLVE_INTERVAL, herald(Source::Fixed)));
    }
    for (source, pool) in settings.kubernetes.selections() {
        tasks.spawn(kube::run(settings.kubernetes.clone(), pool, herald(source)));
    }
}

// === impl Herald ===

impl Herald {
    /// Tells the whole set.
    async fn desired(&self, pods: Vec<Sighting>) -> Result<(), PoolEnded> {
        self.tell(Desired { pods, ..Desired::default() }).await
    }

    /// Tells the whole set as far as it can be seen.
    async fn partly(&self, pods: Vec<Sighting>, trouble: String) -> Result<(), PoolEnded> {
        self.tell(Desired { pods, trouble: Some(trouble.into()), by_removal: false }).await
    }

    async fn tell(&self, set: Desired) -> Result<(), PoolEnded> {
        self.send(Report::Desired(set)).await
    }

    /// Tells that the set told last is still so.
    async fn alive(&self) -> Result<(), PoolEnded> {
        self.send(Report::Alive).await
    }

    /// Tells that the source cannot say.
    async fn lost(&self, error: impl Into<Arc<str>>) -> Result<(), PoolEnded> {
        self.send(Report::Lost(error.into())).await
    }

    async fn send(&self, report: Report) -> Result<(), PoolEnded> {
        self.reports.send((self.source, report)).await.map_err(|_ended| PoolEnded)
    }
}
