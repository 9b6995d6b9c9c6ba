//! KV events from a publisher's sockets to the sink, over loopback: in order, whole, and with the
//! trust that they deserve.

#[path = "support/fake_engine.rs"]
mod fake_engine;
#[path = "support/fake_publisher.rs"]
mod fake_publisher;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fake_engine::FakeEngine;
use fake_publisher::{FakePublisher, Say};
use kv_index::{Applied, Event, Slot};
use parking_lot::Mutex;
use router::discovery::{DiscoverySettings, StaticEndpoint};
use router::feed::kv_events::{
    Doubt, KvCount, KvEventsSettings, KvReport, KvSink, Mode, SelfCheck, Trust,
};
use router::pool::{self, Hooks, Pool, PoolGuard, PoolSettings};
use router::units::HumanDuration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Holds what it is told that the pod holds.
#[derive(Debug, Default)]
struct Recorder {
    held: Mutex<BTreeSet<u64>>,
    /// A block that it panics at.
    panics_at: Mutex<Option<u64>>,
    by_slot: Mutex<BTreeMap<Slot, usize>>,
}

/// One engine, its pool and the sink.
struct World {
    engine: FakeEngine,
    pool: Pool,
    sink: Arc<Recorder>,
    guard: PoolGuard,
}

impl KvSink for Recorder {
    fn apply(&self, slot: Slot, event: &Event) -> Applied {
        *self.by_slot.lock().entry(slot).or_default() += 1;
        if let Event::Stored(stored) = event {
            let panics_at = *self.panics_at.lock();
            let is_there = stored.blocks.iter().any(|hash| Some(hash.0) == panics_at);
            assert!(!is_there, "on purpose");
        }
        let mut held = self.held.lock();
        match event {
            Event::Stored(stored) => held.extend(stored.blocks.iter().map(|hash| hash.0)),
            Event::Removed(removed) => removed.blocks.iter().for_each(|hash| {
                held.remove(&hash.0);
            }),
            Event::Cleared => held.clear(),
        }
        Applied::default()
    }

    fn clear(&self, _: Slot) {
        self.held.lock().clear();
    }
}

/// Everything that waits is short: a message lost before the subscription is found soon.
fn settings() -> KvEventsSettings {
    KvEventsSettings { idle: HumanDuration::from_millis(200), ..KvEventsSettings::default() }
}

impl World {
    async fn start(publisher: &FakePublisher) -> Self {
        Self::start_with(settings(), publisher.sources()).await
    }

    async fn start_with(settings: KvEventsSettings, sources: serde_json::Value) -> Self {
        let engine = FakeEngine::start("tiny").await;
        *engine.says.kv_event_sources.lock() = sources;
        let endpoints = vec![StaticEndpoint::from(engine.addr)];
        let discovery = DiscoverySettings { endpoints, ..DiscoverySettings::default() };
        let sink = Arc::<Recorder>::default();
        let shared = Arc::clone(&sink) as Arc<dyn KvSink>;
        let mut pools = PoolSettings::default();
        // What is probed again was asked for.
        pools.probe.interval = HumanDuration::from_secs(3600);
        let (pool, guard) =
            pool::start_with_events(pools, discovery, (settings, shared), Hooks::default())
                .expect("the ports are free");
        pool.wait_for(|snapshot| !snapshot.endpoints.is_empty()).await.expect("it is running");
        Self { engine, pool, sink, guard }
    }

    fn report(&self) -> KvReport {
        self.pool.snapshot().endpoints[0].kv_events.report()
    }

    /// Waits until the sink holds exactly these blocks and the pod is trusted so. Each round is a
    /// real round trip: no clock, no busy loop.
    async fn until(&self, held: &[u64], trust: Trust) {
        let wanted: BTreeSet<_> = held.iter().copied().collect();
        while *self.sink.held.lock() != wanted || self.report().trust != trust {
            self.round_trip().await;
        }
    }

    async fn round_trip(&self) {
        let mut stream = TcpStream::connect(self.engine.addr).await.expect("it listens");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
        stream.read_to_end(&mut Vec::new()).await.expect("it answers");
    }
}

fn stored(blocks: impl IntoIterator<Item = u64>) -> Vec<Say> {
    blocks.into_iter().map(Say::Stored).collect()
}

#[tokio::test]
async fn what_was_published_before_and_after_we_came_is_exact() {
    let mut publisher = FakePublisher::start().await;
    publisher.publish(&stored(1..4)).await;
    let world = World::start(&publisher).await;
    world.until(&[1, 2, 3], Trust::Exact).await;
    publisher.publish(&stored([4])).await;
    publisher.publish(&[Say::Removed(2)]).await;
    world.until(&[1, 3, 4], Trust::Exact).await;
    let report = world.report();
    assert_eq!(
        (report.counts[KvCount::Batches], report.counts[KvCount::Events], report.last_seq),
        (3, 5, Some(2))
    );
    assert_eq!((report.counts[KvCount::Undecodable], report.counts[KvCount::Resets]), (0, 0));
}

#[tokio::test]
async fn a_gap_is_asked_for_and_merged_in_order() {
    let mut publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    publisher.publish(&stored([1])).await;
    world.until(&[1], Trust::Exact).await;
    publisher.whisper(&stored([2]));
    publisher.whisper(&[Say::Removed(1)]);
    publisher.publish(&stored([3])).await;
    world.until(&[2, 3], Trust::Exact).await;
    assert_eq!(world.report().counts[KvCount::Resets], 0, "nothing was lost for good");
}

#[tokio::test]
async fn a_gap_that_nobody_can_fill_forgets_what_may_be_wrong() {
    let mut publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    publisher.publish(&stored([1])).await;
    world.until(&[1], Trust::Exact).await;
    publisher.lose(&[Say::Removed(1)]);
    publisher.publish(&stored([3])).await;
    world.until(&[3], Trust::Uncertain(Doubt::Gap)).await;
    publisher.publish(&[Say::Cleared, Say::Stored(9)]).await;
    world.until(&[9], Trust::Exact).await;
}

#[tokio::test]
async fn a_restarted_engine_is_known_by_its_new_story() {
    let mut publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    publisher.publish(&stored(1..6)).await;
    world.until(&[1, 2, 3, 4, 5], Trust::Exact).await;
    let (publish, replay) = (publisher.publish, publisher.replay);
    drop(publisher);
    let mut publisher = FakePublisher::start_on(publish, replay, 5000.0).await;
    publisher.publish(&stored([7])).await;
    world.until(&[7], Trust::Exact).await;
    assert!(world.report().counts[KvCount::Resets] > 0);
}

#[tokio::test]
async fn a_pod_whose_stream_ends_is_probed_at_once() {
    let publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    world.until(&[], Trust::Exact).await;
    world.engine.says.healthy.store(false, Ordering::SeqCst);
    drop(publisher);
    let is_out = |s: &pool::Snapshot| s.endpoints[0].health == pool::Health::Ejected;
    world.pool.wait_for(is_out).await.expect("it is running");
}

#[tokio::test]
async fn a_late_start_says_so_until_the_cache_is_cleared() {
    let mut publisher = FakePublisher::start().await;
    publisher.publish(&stored([1])).await;
    publisher.forget();
    publisher.publish(&stored([2])).await;
    let world = World::start(&publisher).await;
    world.until(&[2], Trust::Uncertain(Doubt::LateStart)).await;
    publisher.publish(&[Say::Cleared]).await;
    world.until(&[], Trust::Exact).await;
}

#[tokio::test]
async fn a_stream_that_lost_its_last_batch_is_found_out_while_it_is_idle() {
    let mut publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    publisher.publish(&stored([1])).await;
    world.until(&[1], Trust::Exact).await;
    publisher.whisper(&stored([2]));
    world.until(&[1, 2], Trust::Exact).await;
}

#[tokio::test]
async fn a_failed_self_check_rebuilds_from_the_history() {
    let mut publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    publisher.publish(&stored([1, 2])).await;
    world.until(&[1, 2], Trust::Exact).await;
    world.sink.held.lock().insert(99);
    world.pool.snapshot().endpoints[0].kv_events.judge(SelfCheck::Failing);
    world.until(&[1, 2], Trust::Exact).await;
}

#[tokio::test]
async fn a_feed_that_panics_is_believed_in_nothing_and_begins_anew() {
    let mut publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    publisher.publish(&stored([1])).await;
    world.until(&[1], Trust::Exact).await;
    *world.sink.panics_at.lock() = Some(2);
    publisher.publish(&stored([2])).await;
    world.until(&[], Trust::Approximate).await;
    *world.sink.panics_at.lock() = None;
    world.until(&[1, 2], Trust::Exact).await;
}

#[tokio::test]
async fn an_over_predicted_answer_has_the_history_asked_for_what_was_lost() {
    let mut publisher = FakePublisher::start().await;
    let patient = KvEventsSettings { idle: HumanDuration::from_secs(3600), ..settings() };
    let world = World::start_with(patient, publisher.sources()).await;
    publisher.publish(&stored([1, 2])).await;
    world.until(&[1, 2], Trust::Exact).await;
    publisher.whisper(&[Say::Removed(2)]);
    world.pool.snapshot().endpoints[0].kv_events.judge(SelfCheck::Overpredicted);
    world.until(&[1], Trust::Exact).await;
    assert_eq!(world.report().counts[KvCount::Resets], 0, "the rest is as good as before");
}

#[tokio::test]
async fn a_history_longer_than_the_publishers_socket_can_queue_is_told_in_parts() {
    let mut publisher = FakePublisher::start().await;
    for block in 1..=7 {
        publisher.publish(&stored([block])).await;
    }
    publisher.keep_at_most(3);
    let world = World::start(&publisher).await;
    world.until(&[1, 2, 3, 4, 5, 6, 7], Trust::Exact).await;
    assert_eq!(world.report().counts[KvCount::FailedReplays], 0);
}

#[tokio::test]
async fn each_rank_is_a_pod_with_a_story_of_its_own() {
    let (mut first, mut second) = (FakePublisher::start().await, FakePublisher::start().await);
    second.publish(&stored([1])).await;
    second.forget();
    first.publish(&stored([1])).await;
    second.publish(&stored([2])).await;
    let mut sources = first.sources();
    sources["1"] = second.sources()["0"].clone();
    let world = World::start_with(settings(), sources).await;
    let trusts = || -> Vec<_> {
        let pods = &world.pool.snapshot().endpoints;
        pods.iter().map(|it| (it.pod.rank, it.kv_events.trust())).collect()
    };
    let late = Trust::Uncertain(Doubt::LateStart);
    while trusts() != [(Some(0), Trust::Exact), (Some(1), late)] {
        world.round_trip().await;
    }
    let snapshot = world.pool.snapshot();
    let [a, b] = &snapshot.endpoints[..] else { panic!("two ranks are two pods") };
    assert_eq!(a.pod.addr, b.pod.addr);
    assert_eq!(*b.pod.uid, *format!("{}/1", a.pod.uid));
    assert_eq!(*world.sink.by_slot.lock(), BTreeMap::from([(a.slot, 1), (b.slot, 1)]));
    world.until(&[1, 2], Trust::Exact).await;
}

#[tokio::test]
async fn a_pod_that_goes_takes_its_feed_with_it() {
    let publisher = FakePublisher::start().await;
    let world = World::start(&publisher).await;
    world.until(&[], Trust::Exact).await;
    let sink = Arc::downgrade(&world.sink);
    world.guard.shutdown().await.expect("no task panicked");
    drop((world.sink, world.pool));
    assert_eq!(sink.strong_count(), 0, "no task holds it any more");
}

#[tokio::test]
async fn a_pod_that_publishes_nothing_is_approximate() {
    let world = World::start_with(settings(), serde_json::json!({})).await;
    world.pool.wait_for(|s| s.endpoints[0].is_ready()).await.expect("it is running");
    assert_eq!(world.report(), KvReport::default());
}

#[tokio::test]
async fn a_pod_that_dials_us_is_heard_and_its_history_asked_for() {
    let bind: SocketAddr = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("there are free ports");
        free.local_addr().expect("it is bound")
    };
    let mut publisher = FakePublisher::start().await;
    let mut sources = publisher.sources();
    // A concrete address that is not the pod's own: it dials.
    sources["0"]["endpoint"] = "tcp://192.0.2.1:5557".into();
    let settings = KvEventsSettings { mode: Mode::Auto, bind: Some(bind), ..settings() };
    let world = World::start_with(settings, sources).await;
    publisher.dial(bind).await;
    publisher.whisper(&stored([1]));
    // Its first batches may go before the gateway has subscribed.
    let mut blocks = vec![1];
    while world.report().trust == Trust::Approximate {
        let next = blocks.len() as u64 + 1;
        publisher.publish(&stored([next])).await;
        blocks.push(next);
        world.round_trip().await;
    }
    world.until(&blocks, Trust::Exact).await;
}
