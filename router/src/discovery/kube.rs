//! Pods from Kubernetes, by label.
//!
//! The watch tells single changes; what goes to the pool is always the whole set. While the API
//! server is away nothing is told, and the set that was told last stays.

mod api;
mod inference_pool;
mod mirror;
mod pod;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use kube::runtime::{WatchStreamExt as _, watcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::api::{Connected, explain, refuses_watch};
use self::mirror::Mirror;
use super::{Herald, PoolEnded, Source};
use crate::backoff::Backoff;
use crate::story::story;
use crate::units::HumanDuration;

/// Pods of a Kubernetes namespace. Needs a Role with `get`, `list` and `watch` on `pods`.
///
/// A pod gets traffic when it has an IP, is Ready and not terminating; its label `llm-d.ai/role`
/// (`prefill`, `decode`, `both`, or a set such as `prefill-decode`) says what for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesSettings {
    /// Whether pods are watched at all.
    pub enabled: bool,
    /// Where the pods live; the gateway's own namespace if not set.
    pub namespace: Option<String>,
    /// Names of InferencePools in that namespace (`inference.networking.k8s.io/v1`, or v1alpha2),
    /// for instance one for each model, which say what `selector`, `port_name` and `port` say
    /// otherwise. Needs `get`, `list` and `watch` on `inferencepools` too.
    pub inference_pools: Vec<String>,
    /// Label selector of the pods, as `kubectl get pods -l` takes it.
    pub selector: String,
    /// Name of the container port of the OpenAI API. Empty: `port` is meant for every pod.
    pub port_name: String,
    /// TCP port for pods without a container port of that name.
    pub port: u16,
    /// Label of the pods that says where they stand: KV blocks are moved faster between two pods with
    /// the same value. Kubernetes 1.35 copies this one from nodes to pods.
    pub topology_label: String,
    /// A kubeconfig file. If not set: `$KUBECONFIG`, `~/.kube/config`, or the pod's own
    /// ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// A watch is renewed after so long, in whole seconds. A silent connection to a dead API
    /// server is noticed 5 s later.
    pub watch_timeout: HumanDuration,
}

/// Which pods of the namespace, and which of their ports.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selection {
    selector: String,
    port_name: String,
    ports: Vec<u16>,
}

/// Waits between attempts at an API server that fails. So many replicas may come back at once, so late
/// may the last one notice.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(8));

// === impl KubernetesSettings ===

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            namespace: None,
            inference_pools: Vec::new(),
            selector: "llm-d.ai/inferenceServing=true".to_owned(),
            port_name: "http".to_owned(),
            port: 8000,
            topology_label: "topology.kubernetes.io/zone".to_owned(),
            kubeconfig: None,
            watch_timeout: HumanDuration::from_secs(60),
        }
    }
}

impl KubernetesSettings {
    /// The sources of pods that it stands for; one by InferencePool with the pool's name.
    pub(super) fn selections(&self) -> Vec<(Source, Option<String>)> {
        if !self.enabled {
            return Vec::new();
        }
        if self.inference_pools.is_empty() {
            return vec![(Source::Kubernetes, None)];
        }
        let pools = (0..).map(Source::InferencePool).zip(self.inference_pools.iter().cloned());
        pools.map(|(source, name)| (source, Some(name))).collect()
    }

    fn selection(&self) -> Selection {
        Selection {
            selector: self.selector.clone(),
            port_name: self.port_name.clone(),
            ports: vec![self.port],
        }
    }
}

/// Watches until the task is aborted or the pool ends: what the InferencePool `pool` selects, or what
/// the settings do.
pub(super) async fn run(settings: KubernetesSettings, pool: Option<String>, herald: Herald) {
    let mut backoff = BACKOFF;
    loop {
        match api::connect(&settings).await {
            Ok(connected) => {
                let PoolEnded = match &pool {
                    Some(name) => follow(&connected, name, &settings, &herald).await,
                    None => watch(&connected, &settings.selection(), &settings, &herald).await,
                };
                return;
            }
            Err(error) => {
                let text = format!("cannot reach Kubernetes: {error}");
                if herald.lost(text).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Watches the InferencePool, and the pods that it names as long as it names them. One that goes,
/// or says nothing that can be used, leaves the last pods in place.
async fn follow(
    connected: &Connected,
    name: &str,
    settings: &KubernetesSettings,
    herald: &Herald,
) -> PoolEnded {
    let mut backoff = BACKOFF;
    let api = loop {
        match inference_pool::find(&connected.client, &connected.namespace, name).await {
            Ok(api) => break api,
            Err(error) => {
                if let Err(ended) = herald.lost(story(&error)).await {
                    return ended;
                }
            }
        }
        tokio::time::sleep(backoff.next()).await;
    };
    let mut pools = pin!(watcher::watch_object(api, name).default_backoff());
    let mut next = None;
    loop {
        let current = next.take();
        let mut watching = pin!(async {
            match &current {
                Some(selection) => watch(connected, selection, settings, herald).await,
                None => std::future::pending().await,
            }
        });
        let other = loop {
            let trouble = tokio::select! {
                ended = &mut watching => return ended,
                Some(pool) = pools.next() => match pool {
                    Ok(Some(pool)) => match inference_pool::selection(&pool) {
                        Ok(selection) if current.as_ref() == Some(&selection) => continue,
                        Ok(selection) => break selection,
                        Err(error) => story(&error),
                    },
                    Ok(None) => format!("InferencePool `{name}` is gone"),
                    Err(error) => match explain(&error, &connected.namespace) {
                        Some(text) => format!("InferencePool `{name}`: {text}"),
                        None => continue,
                    },
                },
            };
            if let Err(ended) = herald.lost(trouble).await {
                return ended;
            }
        };
        next = Some(other);
    }
}

async fn watch(
    connected: &Connected,
    selection: &Selection,
    settings: &KubernetesSettings,
    herald: &Herald,
) -> PoolEnded {
    let Connected { pods, namespace, heard, .. } = connected;
    let timeout_s = u32::try_from(settings.watch_timeout.as_secs()).unwrap_or(u32::MAX).max(1);
    let config = watcher::Config::default().labels(&selection.selector).timeout(timeout_s);
    let mut events = pin!(watcher(pods.clone(), config.clone()));
    let topology_label = settings.topology_label.clone();
    let (port_name, ports) = (selection.port_name.clone(), selection.ports.clone());
    let mut mirror = Mirror::new(port_name, ports, topology_label);
    let mut backoff = BACKOFF;
    loop {
        let told = tokio::select! {
            Some(event) = events.next() => match event {
                Ok(event) => {
                    // A list may begin well and fail again and again.
                    if !matches!(event, watcher::Event::Init) {
                        backoff.reset();
                    }
                    match mirror.fold(event) {
                        Some(set) => herald.tell(set).await,
                        None => Ok(()),
                    }
                }
                Err(error) => {
                    // What was heard before the error is no sign of life after it.
                    let _stale = heard.notified().now_or_never();
                    let told = match explain(&error, namespace) {
                        Some(text) => herald.lost(text).await,
                        None => Ok(()),
                    };
                    if refuses_watch(&error) {
                        // As client-go does: what there is is listed anew.
                        events.set(watcher(pods.clone(), config.clone()));
                    }
                    tokio::time::sleep(backoff.next()).await;
                    told
                }
            },
            () = heard.notified(), if mirror.is_whole() => herald.alive().await,
        };
        if let Err(ended) = told {
            return ended;
        }
    }
}
