//! The pool's task over static endpoints: probes, metrics, passive health, its end.

#[path = "support/fake_engine.rs"]
mod fake_engine;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fake_engine::FakeEngine;
use kv_index::Slot;
use parking_lot::Mutex;
use router::discovery::{DiscoverySettings, StaticEndpoint};
use router::pool::{
    self, Health, Hooks, Outcome, Pool, PoolGuard, PoolSettings, SlotHook, Snapshot,
};

fn start(engines: &[&FakeEngine]) -> (Pool, PoolGuard) {
    start_with(PoolSettings::default(), engines)
}

fn start_with(settings: PoolSettings, engines: &[&FakeEngine]) -> (Pool, PoolGuard) {
    start_hooked(settings, engines, Hooks::default())
}

fn start_hooked(
    settings: PoolSettings,
    engines: &[&FakeEngine],
    hooks: Hooks,
) -> (Pool, PoolGuard) {
    let endpoints = engines.iter().map(|engine| StaticEndpoint::from(engine.addr)).collect();
    let discovery = DiscoverySettings { endpoints, ..DiscoverySettings::default() };
    pool::start(settings, discovery, hooks).expect("the HTTP client builds")
}

/// A hook, and the slots that it was called with.
fn log() -> (Arc<Mutex<Vec<Slot>>>, SlotHook) {
    let slots = Arc::<Mutex<Vec<Slot>>>::default();
    let log = Arc::clone(&slots);
    (slots, Box::new(move |slot| log.lock().push(slot)))
}

async fn wait(pool: &Pool, wanted: impl FnMut(&Snapshot) -> bool) -> Arc<Snapshot> {
    pool.wait_for(wanted).await.expect("the pool is running")
}

fn all_ready(snapshot: &Snapshot) -> bool {
    !snapshot.endpoints.is_empty() && snapshot.endpoints.iter().all(|e| e.is_ready())
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_with_its_models_after_its_probe() {
    let (a, b) = (FakeEngine::start("tiny").await, FakeEngine::start("other").await);
    let (pool, guard) = start(&[&a, &b]);
    assert_eq!(pool.snapshot().synced_at, None);
    let snapshot = wait(&pool, all_ready).await;
    for (engine, model) in [(&a, "tiny"), (&b, "other")] {
        let mut endpoints = snapshot.endpoints.iter();
        let endpoint = endpoints.find(|e| e.pod.addr == engine.addr).expect("it is listed");
        assert!(endpoint.serves(model) && endpoint.models.len() == 1);
    }
    assert_eq!((snapshot.endpoints.len(), snapshot.ready().count()), (2, 2));
    guard.shutdown().await.expect("no task panicked");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_starts_late_is_found_and_its_models_are_refreshed() {
    let engine = FakeEngine::start("tiny").await;
    engine.says.healthy.store(false, Ordering::SeqCst);
    let (pool, _guard) = start(&[&engine]);
    let failed = pool.failures().failed_probes;
    wait(&pool, |_| pool.failures().failed_probes > failed + 3).await;
    assert_eq!(pool.snapshot().endpoints[0].health, Health::Unproven);
    engine.says.healthy.store(true, Ordering::SeqCst);
    wait(&pool, all_ready).await;
    engine.says.models.lock().push("tiny-sql");
    wait(&pool, |s| s.endpoints[0].serves("tiny-sql") && s.endpoints[0].serves("tiny")).await;
}

#[tokio::test(start_paused = true)]
async fn engine_metrics_are_hints_that_only_age() {
    let engine = FakeEngine::start("tiny").await;
    let (pool, _guard) = start(&[&engine]);
    let hints = |s: &Snapshot| s.endpoints[0].engine;
    let first = wait(&pool, |s| all_ready(s) && hints(s).read_at.is_some()).await;
    assert_eq!((hints(&first).block_size, hints(&first).num_blocks), (Some(16), Some(512)));
    assert!((hints(&first).running - 3.0).abs() < f64::EPSILON);

    engine.says.metrics.store(false, Ordering::SeqCst);
    // Static endpoints are told again every 30 s: that wakes the wait below.
    let later = wait(&pool, |_| pool.failures().failed_metric_reads >= 5).await;
    assert!(all_ready(&later), "metrics blame nobody");
    assert_eq!(hints(&later).block_size, Some(16));
    assert!(hints(&later).read_at.expect("it was read").elapsed() >= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_engine_is_read_rarely_and_at_once_when_a_request_goes_there() {
    let engine = FakeEngine::start("tiny").await;
    engine.says.running.store(0, Ordering::SeqCst);
    let (pool, _guard) = start(&[&engine]);
    let mut last = wait(&pool, |s| all_ready(s) && s.endpoints[0].engine.read_at.is_some()).await;
    let mut next_gap = async || {
        let before = last.endpoints[0].engine.read_at;
        last = wait(&pool, |s| s.endpoints[0].engine.read_at != before).await;
        last.endpoints[0].engine.read_at.expect("read") - before.expect("read")
    };
    let rarely = PoolSettings::default().engine_metrics.idle_interval.get().mul_f64(0.8);
    while next_gap().await < rarely {}
    let traffic = Arc::clone(&pool.snapshot().endpoints[0].record.traffic);
    let visit = traffic.visit();
    assert!(next_gap().await < rarely, "at once");
    assert!(next_gap().await < rarely, "and while it is there");
    drop(visit);
    while next_gap().await < rarely {}
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_closes_its_port_is_ejected_after_one_failure_and_returns() {
    let (a, b) = (FakeEngine::start("tiny").await, FakeEngine::start("tiny").await);
    let (lost, cache_lost) = log();
    let hooks = Hooks { cache_lost, ..Hooks::default() };
    let (pool, _guard) = start_hooked(PoolSettings::default(), &[&a, &b], hooks);
    let snapshot = wait(&pool, all_ready).await;
    let slot = snapshot.endpoints.iter().find(|e| e.pod.addr == a.addr).expect("listed").slot;
    let health =
        |s: &Snapshot| s.endpoints.iter().find(|e| e.slot == slot).map(|endpoint| endpoint.health);

    a.says.healthy.store(false, Ordering::SeqCst);
    pool.report(slot, Outcome::Failed);
    wait(&pool, |s| health(s) == Some(Health::Ejected)).await;
    assert_eq!(pool.snapshot().ready().count(), 1);
    a.says.healthy.store(true, Ordering::SeqCst);
    wait(&pool, all_ready).await;

    lost.lock().clear();
    drop(a);
    let after = wait(&pool, |s| health(s) == Some(Health::Ejected)).await;
    let endpoint = after.endpoints.iter().find(|e| e.slot == slot).expect("it is still listed");
    let failure = endpoint.record.last_failure.as_ref().expect("it failed");
    assert!(failure.reason.contains("refused"), "{}", failure.reason);
    wait(&pool, |_| !lost.lock().is_empty()).await;
    assert_eq!(lost.lock()[0], slot, "nobody is there to hold anything");
}

#[tokio::test(start_paused = true)]
async fn failures_of_requests_eject_one_of_two_pods_that_answer_probes() {
    let (a, b) = (FakeEngine::start("tiny").await, FakeEngine::start("tiny").await);
    let (pool, _guard) = start(&[&a, &b]);
    let snapshot = wait(&pool, all_ready).await;
    for endpoint in &snapshot.endpoints {
        for _ in 0..3 {
            pool.report(endpoint.slot, Outcome::Failed);
        }
    }
    let after = wait(&pool, |s| s.ready().count() < 2).await;
    assert_eq!(after.ready().count(), 1, "half of the pods may be ejected");
    wait(&pool, all_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_an_api_key_is_probed_with_the_token_of_the_file() {
    let engine = FakeEngine::start("tiny").await;
    *engine.says.token.lock() = Some("sesame");
    let file = tempfile::NamedTempFile::new().expect("there is a temporary folder");
    let mut settings = PoolSettings::default();
    settings.probe.token_file = Some(file.path().to_owned());
    let (pool, _guard) = start_with(settings, &[&engine]);
    wait(&pool, |_| pool.failures().failed_probes > 1).await;
    assert_eq!(pool.snapshot().ready().count(), 0);
    std::fs::write(file.path(), "sesame\n").expect("the file can be written");
    wait(&pool, all_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_reports_and_counts_them() {
    let engine = FakeEngine::start("tiny").await;
    let (pool, _guard) = start(&[&engine]);
    let slot = wait(&pool, all_ready).await.endpoints[0].slot;
    for _ in 0..2000 {
        // No await: the pool's task cannot run between these.
        pool.report(slot, Outcome::Failed);
    }
    assert!(pool.failures().dropped_reports >= 900);
    for _ in 0..2000 {
        pool.report(slot, Outcome::Busy);
    }
}

#[tokio::test(start_paused = true)]
async fn after_shutdown_nobody_probes() {
    let engine = FakeEngine::start("tiny").await;
    let (removed, hook) = log();
    let hooks = Hooks { removed: hook, ..Hooks::default() };
    let (pool, guard) = start_hooked(PoolSettings::default(), &[&engine], hooks);
    wait(&pool, all_ready).await;
    guard.shutdown().await.expect("no task panicked");
    let probes = engine.says.probes.load(Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(engine.says.probes.load(Ordering::SeqCst), probes);
    assert!(pool.wait_for(|_| false).await.is_none(), "waiting on an ended pool ends");
    assert_eq!(removed.lock().len(), 0, "the last snapshot stays readable");
    assert_eq!(pool.snapshot().ready().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_ends_every_task() {
    let engine = FakeEngine::start("tiny").await;
    let (pool, guard) = start(&[&engine]);
    wait(&pool, all_ready).await;
    drop(guard);
    assert!(pool.wait_for(|_| false).await.is_none());
}
