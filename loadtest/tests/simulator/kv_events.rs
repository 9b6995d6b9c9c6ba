//! KV events from the simulator's cache over its sockets to a router's sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use kv_index::{Applied, Event, Slot};
use loadtest::simulator::{Config, EngineConfig, KvFault, Simulator};
use parking_lot::Mutex;
use router::discovery::{DiscoverySettings, StaticEndpoint};
use router::feed::kv_events::{Doubt, KvCount, KvEventsSettings, KvReport, KvSink, Trust};
use router::pool::{self, Hooks, Pool, PoolGuard, PoolSettings};
use router::units::HumanDuration;
use serde_json::{Value, json};

use crate::support::{fast, get, post, start};

/// How many copies of each block it was told of.
#[derive(Debug, Default)]
struct Recorder(Mutex<BTreeMap<u64, usize>>);

struct World {
    pod: Simulator,
    pool: Pool,
    sink: Arc<Recorder>,
    _guard: PoolGuard,
}

impl KvSink for Recorder {
    fn apply(&self, _: Slot, event: &Event) -> Applied {
        let mut held = self.0.lock();
        match event {
            Event::Stored(stored) => {
                for block in &stored.blocks {
                    *held.entry(block.0).or_default() += 1;
                }
            }
            Event::Removed(removed) => {
                for block in &removed.blocks {
                    let copies = held.get_mut(&block.0).expect("what is removed was stored");
                    *copies -= 1;
                    if *copies == 0 {
                        held.remove(&block.0);
                    }
                }
            }
            Event::Cleared => held.clear(),
        }
        Applied::default()
    }

    fn clear(&self, _: Slot) {
        self.0.lock().clear();
    }
}

/// Few blocks, so that they are evicted.
fn small() -> Config {
    let engine = EngineConfig { num_blocks: 40, ..fast().engine };
    Config { engine, ..fast() }
}

impl World {
    async fn start() -> Self {
        let pod = start(small()).await;
        let endpoints = vec![StaticEndpoint::from(pod.addr())];
        let discovery = DiscoverySettings { endpoints, ..DiscoverySettings::default() };
        let settings =
            KvEventsSettings { idle: HumanDuration::from_millis(200), ..Default::default() };
        let sink = Arc::<Recorder>::default();
        let shared = Arc::clone(&sink) as Arc<dyn KvSink>;
        let (pool, guard) = pool::start_with_events(
            PoolSettings::default(),
            discovery,
            (settings, shared),
            Hooks::default(),
        )
        .expect("nothing is bound");
        pool.wait_for(|s| s.endpoints.len() == 1).await.expect("it is running");
        Self { pod, pool, sink, _guard: guard }
    }

    async fn ask(&self, words: &str) {
        let body = json!({"prompt": words.repeat(8), "max_tokens": 40, "ignore_eos": true});
        post(&self.pod, "/v1/completions", &body).await;
    }

    async fn fault(&self, fault: Value) {
        let answer = post(&self.pod, "/sim/kv_events", &fault).await;
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    fn report(&self) -> KvReport {
        self.pool.snapshot().endpoints[0].kv_events.report()
    }

    /// What it was told, as the cache lists it.
    fn told(&self) -> Vec<u64> {
        let copies = |(key, count): (&u64, &usize)| vec![*key; *count];
        self.sink.0.lock().iter().flat_map(copies).collect()
    }

    /// Waits until the sink holds what the pod holds, and the pod is trusted so. Each round is a
    /// real round trip.
    async fn until_agreed(&self, trust: Trust) {
        while self.told() != self.pod.cached_keys() || self.report().trust != trust {
            get(&self.pod, "/health").await;
        }
    }
}

#[tokio::test]
async fn a_sink_holds_what_the_pod_holds_through_evictions() {
    let world = World::start().await;
    for words in ["one two three ", "four five ", "one two three ", "six seven eight nine "] {
        for n in 0..5 {
            world.ask(&format!("{n} {words}")).await;
        }
    }
    world.until_agreed(Trust::Exact).await;
    assert!(!world.told().is_empty());
    let report = world.report();
    assert!(
        report.counts[KvCount::Events] > 60,
        "more than the pod has blocks: some were evicted: {report:?}"
    );
    assert_eq!((report.counts[KvCount::Undecodable], report.counts[KvCount::Skipped]), (0, 0));
}

#[tokio::test]
async fn batches_that_no_subscriber_got_are_replayed() {
    let world = World::start().await;
    world.ask("one two three ").await;
    world.until_agreed(Trust::Exact).await;
    world.fault(json!({"do": "drop", "batches": 3})).await;
    for n in 0..6 {
        world.ask(&format!("{n} four five ")).await;
    }
    world.until_agreed(Trust::Exact).await;
    assert!(world.report().counts[KvCount::Replays] > 0);
}

#[tokio::test]
async fn batches_that_are_lost_for_good_leave_nothing_wrong() {
    let world = World::start().await;
    world.ask("one two three ").await;
    world.until_agreed(Trust::Exact).await;
    world.fault(json!({"do": "drop", "batches": 2, "forget": true})).await;
    while world.report().trust != Trust::Uncertain(Doubt::Gap) {
        world.ask("four five ").await;
    }
    let held = world.pod.cached_keys();
    assert!(world.told().iter().all(|key| held.contains(key)), "never more than the pod holds");
    // vLLM says it with the next step.
    post(&world.pod, "/reset_prefix_cache", &json!({})).await;
    world.ask("six seven ").await;
    world.until_agreed(Trust::Exact).await;
}

#[tokio::test]
async fn a_restarted_engine_is_forgotten_and_learned_anew() {
    let world = World::start().await;
    for n in 0..3 {
        world.ask(&format!("{n} one two three ")).await;
    }
    world.until_agreed(Trust::Exact).await;
    world.pod.kv_fault(KvFault::Restart).await;
    assert!(world.pod.cached_keys().is_empty());
    world.ask("four five ").await;
    world.until_agreed(Trust::Exact).await;
    assert!(world.report().counts[KvCount::Resets] > 0);
}

#[tokio::test]
async fn a_pod_without_events_says_so() {
    let engine = EngineConfig { kv_events: false, ..fast().engine };
    let pod = start(Config { engine, ..fast() }).await;
    assert_eq!(get(&pod, "/kv_event_sources").await.json(), json!({}));
}

#[tokio::test]
async fn where_the_events_are_is_said_as_vllm_says_it() {
    let pod = start(fast()).await;
    let sources = get(&pod, "/kv_event_sources").await.json();
    let source = sources["0"].as_object().expect("one rank");
    let keys: Vec<_> = source.keys().map(String::as_str).collect();
    let expected = [
        "enable_kv_cache_events",
        "publisher",
        "endpoint",
        "replay_endpoint",
        "buffer_steps",
        "hwm",
        "max_queue_size",
        "topic",
    ];
    assert_eq!(keys, expected);
}
