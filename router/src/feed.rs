//! What we hear from each pod: one owned task per pod and feed, from its first sighting to its end.

mod engine_metrics;
mod probe;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kv_index::Slot;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};

pub use engine_metrics::EngineMetricsSettings;
pub use probe::{ProbeError, ProbeSettings};

use crate::pool::{Event, Pod, PoolSettings, Shared};

/// Starts the feeds of pods.
#[derive(Debug)]
pub(crate) struct Feeds {
    probe: Arc<ProbeSettings>,
    engine_metrics: Arc<EngineMetricsSettings>,
    /// A connection per probe: it also proves that the pod accepts.
    probe_client: reqwest::Client,
    metrics_client: reqwest::Client,
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

/// The running feeds of one pod; dropping it ends them.
#[derive(Debug)]
pub(crate) struct PodFeeds {
    tasks: Vec<AbortHandle>,
    doubt: Arc<Notify>,
}

/// What a feed needs to speak for its pod.
#[derive(Clone, Debug)]
struct Voice {
    pod: Pod,
    slot: Slot,
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
}

// === impl Feeds ===

impl Feeds {
    pub(crate) fn new(
        settings: &PoolSettings,
        events: mpsc::Sender<Event>,
        shared: Arc<Shared>,
    ) -> Result<Self, reqwest::Error> {
        crate::tls::install_provider();
        Ok(Self {
            probe_client: client(
                settings.probe.connect_timeout.get(),
                settings.probe.timeout.get(),
            )
            .pool_max_idle_per_host(0)
            .build()?,
            metrics_client: client(
                settings.probe.connect_timeout.get(),
                settings.engine_metrics.timeout.get(),
            )
            // Under vLLM's own 5 s, so that the pod is not the one that closes first.
            .pool_idle_timeout(Duration::from_secs(3))
            .build()?,
            probe: Arc::new(settings.probe.clone()),
            engine_metrics: Arc::new(settings.engine_metrics.clone()),
            events,
            shared,
        })
    }

    /// Starts the feeds of a pod among `tasks`.
    pub(crate) fn start(&self, pod: &Pod, slot: Slot, tasks: &mut JoinSet<()>) -> PodFeeds {
        let voice = Voice {
            pod: pod.clone(),
            slot,
            events: self.events.clone(),
            shared: Arc::clone(&self.shared),
        };
        let doubt = Arc::new(Notify::new());
        let mut started = vec![tasks.spawn(probe::run(
            voice.clone(),
            self.probe_client.clone(),
            Arc::clone(&self.probe),
            Arc::clone(&doubt),
        ))];
        if self.engine_metrics.enabled {
            started.push(tasks.spawn(engine_metrics::run(
                voice,
                self.metrics_client.clone(),
                Arc::clone(&self.engine_metrics),
            )));
        }
        PodFeeds { tasks: started, doubt }
    }
}

/// A client that speaks to the pod itself and to nobody else.
fn client(connect: Duration, total: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .connect_timeout(connect)
        .timeout(total)
        // Pods speak plain HTTP: no roots, so that none need be found on a bare image.
        .tls_certs_only([])
}

// === impl PodFeeds ===

impl PodFeeds {
    /// The pod's probe looks at once instead of at its next turn.
    pub(crate) fn probe_now(&self) {
        self.doubt.notify_one();
    }
}

impl Drop for PodFeeds {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

// === impl Voice ===

impl Voice {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.pod.addr)
    }

    /// Tells the pool's task; waits while its queue is full. An error means that it has ended, and
    /// with it the feed.
    async fn tell(&self, event: Event) -> Result<(), mpsc::error::SendError<Event>> {
        self.events.send(event).await
    }

    fn failed(counter: &AtomicU64) {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Reads a body of at most `limit` bytes; none if it is longer.
async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
