//! The one task that writes the pool, and the guard that ends it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kv_index::Slot;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::registry::{Effects, Event, Registry};
use super::{Hooks, Pool, PoolSettings, Shared, Snapshot};
use crate::discovery::{self, DiscoverySettings, Report, Source};
use crate::feed::kv_events::{KvEventsSettings, KvSink};
use crate::feed::{Feeds, News, PodFeeds};

/// Why the pool did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client of the probes could not be built.
    #[error("cannot build the HTTP client that probes pods")]
    HttpClient(#[from] reqwest::Error),
    /// The port that pods dial with their KV events cannot be listened on.
    #[error("cannot listen for KV events on {address}: {source}")]
    KvListen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Ends the pool's tasks: politely with [`PoolGuard::shutdown`], at once when dropped.
#[derive(Debug)]
pub struct PoolGuard {
    stop: CancellationToken,
    task: JoinHandle<()>,
    over: CancellationToken,
}

struct Task {
    shared: Arc<Shared>,
    hooks: Hooks,
    registry: Registry,
    events: mpsc::Receiver<Event>,
    reports: mpsc::Receiver<(Source, Report)>,
    news: mpsc::Receiver<News>,
    feeds: Feeds,
    running: HashMap<Slot, PodFeeds>,
    /// Of pods: they begin anew by themselves.
    tasks: JoinSet<()>,
    /// Discovery, and the port that pods dial: none of them ends before the pool.
    sources: JoinSet<()>,
    stop: CancellationToken,
}

/// Reports and news that may wait for the pool's task. A thousand requests that fail at once fit.
const QUEUE: usize = 1024;
/// Events that are folded into one snapshot.
const BATCH: usize = 64;

/// Starts discovery, probes and the pool's task on the current tokio runtime.
///
/// # Errors
///
/// When the HTTP client of the probes cannot be built. Nothing else fails here: an API server or
/// pods that cannot be reached are conditions of the running pool.
pub fn start(
    settings: PoolSettings,
    discovery: DiscoverySettings,
    hooks: Hooks,
) -> Result<(Pool, PoolGuard), StartError> {
    start_feeding(settings, discovery, None, hooks)
}

/// The same, and what the pods say of their caches goes to the sink.
///
/// # Errors
///
/// Besides, when the port that pods dial cannot be listened on.
pub fn start_with_events(
    settings: PoolSettings,
    discovery: DiscoverySettings,
    kv_events: (KvEventsSettings, Arc<dyn KvSink>),
    hooks: Hooks,
) -> Result<(Pool, PoolGuard), StartError> {
    start_feeding(settings, discovery, Some(kv_events), hooks)
}

fn start_feeding(
    settings: PoolSettings,
    discovery: DiscoverySettings,
    kv_events: Option<(KvEventsSettings, Arc<dyn KvSink>)>,
    hooks: Hooks,
) -> Result<(Pool, PoolGuard), StartError> {
    let (sender, events) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared::new(Snapshot::default()));
    let mut sources = JoinSet::new();
    let (heard, news) = mpsc::channel(QUEUE);
    let (said, reports) = mpsc::channel(QUEUE);
    let of_feeds = (&settings.probe, &settings.engine_metrics);
    let mut feeds = Feeds::new(of_feeds, heard, Arc::clone(&shared.feeds))?;
    if let Some((settings, sink)) = kv_events {
        let bind = settings.bind;
        feeds = feeds.with_kv_events(settings, sink, &mut sources).map_err(|source| {
            let address = bind.expect("only a listener can fail");
            StartError::KvListen { address, source }
        })?;
    }
    let registry = Registry::new(settings, &discovery.sources());
    discovery::spawn(discovery, &said, &mut sources);
    let stop = CancellationToken::new();
    let task = Task {
        shared: Arc::clone(&shared),
        hooks,
        registry,
        events,
        reports,
        news,
        feeds,
        running: HashMap::new(),
        tasks: JoinSet::new(),
        sources,
        stop,
    };
    Ok((Pool { shared, events: sender }, task.spawn()))
}

// === impl PoolGuard ===

impl PoolGuard {
    /// Resolves when the pool's task has ended, by itself or by a panic: its snapshot is the last.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// Ends and joins every task of the pool. The last snapshot stays readable.
    ///
    /// # Errors
    ///
    /// When the pool's task had panicked.
    pub async fn shutdown(mut self) -> Result<(), JoinError> {
        self.stop.cancel();
        (&mut self.task).await
    }
}

impl Drop for PoolGuard {
    fn drop(&mut self) {
        // The task owns all others in a `JoinSet`, which aborts them when it is dropped.
        self.task.abort();
    }
}

// === impl Task ===

impl Task {
    fn spawn(self) -> PoolGuard {
        let (stop, over) = (self.stop.clone(), CancellationToken::new());
        let alive = over.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _alive = alive;
            self.run().await;
        });
        PoolGuard { stop, task, over }
    }

    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.registry.deadline();
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => break,
                Some(ended) = self.sources.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "who names the pods is gone: the pool ends");
                    break;
                },
                Some(ended) = self.tasks.join_next() => log_end(ended),
                () = due => batch.push(Event::Tick),
                Some(news) = self.news.recv() => {
                    batch.push(Event::Heard(news));
                    let more = std::iter::from_fn(|| self.news.try_recv().ok());
                    batch.extend(more.take(BATCH - 1).map(Event::Heard));
                }
                Some((source, report)) = self.reports.recv() => batch.push(Event::Reported(source, report)),
                1.. = self.events.recv_many(&mut batch, BATCH) => {}
            }
            self.take_in(&mut batch);
        }
        self.running.clear();
        self.sources.shutdown().await;
        self.tasks.shutdown().await;
    }

    fn take_in(&mut self, batch: &mut Vec<Event>) {
        let mut effects = Effects::default();
        let now = Instant::now();
        for event in batch.drain(..) {
            self.registry.apply(event, now, &mut effects);
        }
        self.shared.suspects.store(self.registry.suspects(), Ordering::Relaxed);
        for slot in &effects.removed {
            self.running.remove(slot);
        }
        if effects.changed {
            self.shared.publish(self.registry.snapshot());
        }
        for endpoint in effects.added.drain(..) {
            // A pod may come and go within one batch.
            if !effects.removed.contains(&endpoint.slot) {
                let feeds = self.feeds.start(
                    (&endpoint.pod, endpoint.slot),
                    (&endpoint.kv_events, &endpoint.record.traffic),
                    &mut self.tasks,
                );
                self.running.insert(endpoint.slot, feeds);
            }
        }
        for slot in &effects.doubted {
            if let Some(feeds) = self.running.get(slot) {
                feeds.probe_now();
            }
        }
        for (slot, owed) in &effects.token_owed {
            if let Some(feeds) = self.running.get(slot) {
                feeds.owe_token(*owed);
            }
        }
        for &slot in &effects.lost {
            (self.hooks.cache_lost)(slot);
        }
        // Nobody reads the removed pods in a new snapshot: their slots can be given away, once the
        // index has let go of them.
        for &slot in &effects.removed {
            (self.hooks.removed)(slot);
            self.registry.recycle(slot);
        }
    }
}

fn log_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a task of the pool panicked: its pod is no longer watched");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_source_of_pods_that_panics_ends_the_pool_and_one_that_ends_does_not() {
        let (_said, reports) = mpsc::channel(1);
        let (_sender, events) = mpsc::channel(1);
        let (heard, news) = mpsc::channel(1);
        let (settings, shared) =
            (PoolSettings::default(), Arc::new(Shared::new(Snapshot::default())));
        let of_feeds = (&settings.probe, &settings.engine_metrics);
        let feeds = Feeds::new(of_feeds, heard, Arc::clone(&shared.feeds)).expect("a client");
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let mut sources = JoinSet::new();
        sources.spawn(async {});
        sources.spawn(async move { gone.await.expect("what discovery panics with") });
        let task = Task {
            shared,
            hooks: Hooks::default(),
            registry: Registry::new(settings, &[Source::Fixed]),
            events,
            reports,
            news,
            feeds,
            running: HashMap::new(),
            tasks: JoinSet::new(),
            sources,
            stop: CancellationToken::new(),
        };
        let guard = task.spawn();
        tokio::task::yield_now().await;
        assert!(!guard.task.is_finished());
        drop(go);
        guard.ended().await;
        guard.shutdown().await.expect("the pool's own task did not panic");
    }
}
