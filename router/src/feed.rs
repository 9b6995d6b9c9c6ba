//! What we hear from each pod: one owned task per pod and feed, from its first sighting to its end.

mod engine_metrics;
pub mod kv_events;
mod probe;
mod restart;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kv_index::Slot;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

pub use engine_metrics::EngineMetricsSettings;
pub use probe::{ProbeError, ProbeSettings};

use self::kv_events::{KvEventsSettings, KvSink, KvStatus, Lanes, Mode, PodEvents};
use self::restart::restarted;
use crate::pod::{EngineHints, ModelCard, Pod, Traffic};

/// What was heard of a pod.
#[derive(Debug)]
pub(crate) enum News {
    /// A probe came back; the next one is due after `next`. `generated`: it had the engine make a token.
    Probed {
        slot: Slot,
        result: Result<Vec<ModelCard>, ProbeError>,
        generated: bool,
        next: Duration,
    },
    /// A pod's metrics were read.
    Metrics { slot: Slot, hints: EngineHints },
    /// So many data-parallel ranks answer at the pod's address: engines with caches of their own.
    Ranks { slot: Slot, ranks: u16 },
}

/// What all feeds count, and what they must know of each other.
#[derive(Debug, Default)]
pub(crate) struct FeedCounts {
    pub(crate) failed_probes: AtomicU64,
    pub(crate) failed_metric_reads: AtomicU64,
    pods: AtomicUsize,
}

/// Starts the feeds of pods.
#[derive(Debug)]
pub(crate) struct Feeds {
    probe: Arc<ProbeSettings>,
    engine_metrics: Arc<EngineMetricsSettings>,
    /// A connection per probe, which is closed soon after: it also proves that the pod accepts.
    probe_client: reqwest::Client,
    metrics_client: reqwest::Client,
    kv_events: Option<KvFeeds>,
    news: mpsc::Sender<News>,
    counts: Arc<FeedCounts>,
}

/// What the feeds of KV events share.
#[derive(Debug)]
struct KvFeeds {
    settings: Arc<KvEventsSettings>,
    sink: Arc<dyn KvSink>,
    lanes: Arc<Lanes>,
}

/// The running feeds of one pod; dropping it ends them.
#[derive(Debug)]
pub(crate) struct PodFeeds {
    tasks: Vec<AbortHandle>,
    asked: Arc<Asked>,
}

/// What is asked of a pod's probe.
#[derive(Debug, Default)]
struct Asked {
    /// A look at once.
    doubt: Notify,
    /// To have the engine make a token, too.
    token: AtomicBool,
}

/// What a feed needs to speak for its pod.
#[derive(Clone, Debug)]
struct Voice {
    pod: Pod,
    slot: Slot,
    asked: Arc<Asked>,
    news: mpsc::Sender<News>,
    counts: Arc<FeedCounts>,
}

/// Looks at pods at which nothing happens are so far apart, those of one kind at all pods together: a
/// look costs 0.4 ms, and 500 pods looked at every 5 s were 11 % of a core.
const QUIET_SPACING: Duration = Duration::from_millis(100);

// === impl FeedCounts ===

impl FeedCounts {
    /// So many pods are heard from now.
    pub(crate) fn set_pods(&self, pods: usize) {
        self.pods.store(pods, Ordering::Relaxed);
    }

    fn pods(&self) -> usize {
        self.pods.load(Ordering::Relaxed)
    }
}

// === impl Feeds ===

impl Feeds {
    pub(crate) fn new(
        (probe, engine_metrics): (&ProbeSettings, &EngineMetricsSettings),
        news: mpsc::Sender<News>,
        counts: Arc<FeedCounts>,
    ) -> Result<Self, reqwest::Error> {
        crate::tls::install_provider();
        Ok(Self {
            probe_client: client(probe.connect_timeout.get(), probe.timeout.get())
                .pool_idle_timeout(probe::MIN_GAP / 2)
                .build()?,
            metrics_client: client(probe.connect_timeout.get(), engine_metrics.timeout.get())
                // Under vLLM's own 5 s, so that the pod is not the one that closes first.
                .pool_idle_timeout(Duration::from_secs(3))
                .build()?,
            probe: Arc::new(probe.clone()),
            engine_metrics: Arc::new(engine_metrics.clone()),
            kv_events: None,
            news,
            counts,
        })
    }

    /// Hears KV events too, for this sink. The listener that pods dial, if there is one, runs
    /// among `tasks`.
    pub(crate) fn with_kv_events(
        mut self,
        settings: KvEventsSettings,
        sink: Arc<dyn KvSink>,
        tasks: &mut JoinSet<()>,
    ) -> std::io::Result<Self> {
        let lanes = Arc::<Lanes>::default();
        if let Some(address) = settings.bind
            && matches!(settings.mode, Mode::Auto | Mode::Bind)
        {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(kv_events::listen(listener, Arc::clone(&lanes)));
        }
        if settings.mode != Mode::Off {
            self.kv_events = Some(KvFeeds { settings: Arc::new(settings), sink, lanes });
        }
        Ok(self)
    }

    /// Starts the feeds of a pod among `tasks`; what it tells of its cache is noted in `status`.
    pub(crate) fn start(
        &self,
        (pod, slot): (&Pod, Slot),
        (status, traffic): (&Arc<KvStatus>, &Arc<Traffic>),
        tasks: &mut JoinSet<()>,
    ) -> PodFeeds {
        let (news, counts) = (self.news.clone(), Arc::clone(&self.counts));
        let asked = Arc::<Asked>::default();
        let voice = Voice { pod: pod.clone(), slot, asked: Arc::clone(&asked), news, counts };
        let mut started = Vec::with_capacity(3);
        let probe = (voice.clone(), self.probe_client.clone(), Arc::clone(&self.probe));
        let probe = move || {
            let (voice, client, settings) = probe.clone();
            probe::run(voice, client, settings)
        };
        started.push(tasks.spawn(restarted((pod.clone(), "probe"), probe, || {})));
        let (hints, heard) = watch::channel(EngineHints::default());
        if let Some(kv) = &self.kv_events {
            let events = PodEvents {
                voice: voice.clone(),
                client: self.metrics_client.clone(),
                settings: Arc::clone(&kv.settings),
                sink: Arc::clone(&kv.sink),
                status: Arc::clone(status),
                hints: heard,
                lanes: Arc::clone(&kv.lanes),
            };
            let lost = events.clone();
            let run = move || kv_events::run(events.clone());
            started
                .push(tasks.spawn(restarted((pod.clone(), "KV events"), run, move || lost.lost())));
        }
        if self.engine_metrics.enabled {
            let (traffic, status) = (Arc::clone(traffic), Arc::clone(status));
            let (client, settings) =
                (self.metrics_client.clone(), Arc::clone(&self.engine_metrics));
            let run = move || {
                let (voice, traffic) = (voice.clone(), Arc::clone(&traffic));
                let told = (Arc::clone(&status), hints.clone());
                engine_metrics::run((voice, traffic), told, client.clone(), Arc::clone(&settings))
            };
            started.push(tasks.spawn(restarted((pod.clone(), "engine metrics"), run, || {})));
        }
        PodFeeds { tasks: started, asked }
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
        self.asked.doubt.notify_one();
    }

    /// From now on the pod's probe has the engine make a token, or no more.
    pub(crate) fn owe_token(&self, is_owed: bool) {
        self.asked.token.store(is_owed, Ordering::Relaxed);
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
    async fn tell(&self, news: News) -> Result<(), mpsc::error::SendError<News>> {
        self.news.send(news).await
    }

    /// The pod's probe looks at once.
    fn doubt(&self) {
        self.asked.doubt.notify_one();
    }

    /// Until the next look at a pod at which nothing happens: `interval`, longer where there are many
    /// pods, and never quite the same, so that pods that came together are not looked at together.
    fn quiet(&self, interval: Duration) -> Duration {
        spaced(interval, QUIET_SPACING, self.counts.pods()).mul_f64(rand::random_range(0.9..1.1))
    }

    fn failed(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The time from one look at a pod to the next, with so many pods.
fn spaced(interval: Duration, spacing: Duration, pods: usize) -> Duration {
    interval.max(spacing.saturating_mul(u32::try_from(pods).unwrap_or(u32::MAX)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_pods_are_each_looked_at_less_often() {
        let interval = Duration::from_secs(5);
        for (pods, secs) in [(0, 5), (50, 5), (500, 50)] {
            assert_eq!(spaced(interval, QUIET_SPACING, pods), Duration::from_secs(secs), "{pods}");
        }
    }
}
