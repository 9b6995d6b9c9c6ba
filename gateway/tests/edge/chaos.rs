//! Requests while pods fail at random: nobody sees it, and nothing is held afterwards.
//!
//! The faults are those that the table of `faults` calls survivable: it grows with the table.
//! `HEARTH_CHAOS_REQUESTS` makes it longer, `HEARTH_CHAOS_SEED` plays one run's plan again.

use std::fmt;

use futures_util::stream::{self, StreamExt};
use loadtest::simulator::{Fault, Fleet, Simulator};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::RwLock;

use crate::faults::table;
use crate::faults::view::{Truth, View};
use crate::support::client::{Client, post, whole};
use crate::support::{House, MODEL, config, fast_pod, hasten, within};

/// Requests of an ordinary run.
const REQUESTS: usize = 400;
/// Requests under way at once.
const AT_ONCE: usize = 12;
/// Pods behind the gateway.
const PODS: usize = 4;
/// Requests between two faults.
const PACE: usize = 8;
/// How long a pod that was killed is away.
const AWAY_MS: u64 = 30;

const PATH: &str = "/v1/chat/completions";

/// What is done, in the order of its numbers.
#[derive(Debug)]
struct Plan {
    seed: u64,
    requests: Vec<Request>,
}

/// One request, and what happens before it is sent.
#[derive(Clone, Debug)]
struct Request {
    number: usize,
    /// A pod that fails from now on; the one that failed before is sound again.
    fault: Option<(usize, Fault)>,
    words: usize,
    max_tokens: usize,
    is_stream: bool,
}

/// What a plan is played in.
struct World {
    house: House,
    /// The pods behind the gateway, then one that is not and always sound.
    fleet: Fleet,
    /// Taken by each request, and alone by a change of faults: whoever meets one meets no second one,
    /// as that would be another promise.
    turn: RwLock<()>,
}

/// What came of a run.
#[derive(Debug, Default)]
struct Toll {
    wrong: Vec<String>,
}

// === impl Plan ===

impl Plan {
    fn of(seed: u64, requests: usize) -> Self {
        let faults = table::survivable();
        let mut draw = StdRng::seed_from_u64(seed);
        let requests = (0..requests).map(|number| {
            let fault = number.is_multiple_of(PACE).then(|| {
                let fault = match faults[draw.random_range(0..faults.len())] {
                    Fault::Down { .. } => Fault::Down { for_ms: Some(AWAY_MS) },
                    Fault::Refuse { .. } => Fault::Refuse { for_ms: Some(AWAY_MS) },
                    fault => fault,
                };
                (draw.random_range(0..PODS), fault)
            });
            Request {
                number,
                fault,
                words: draw.random_range(1..200),
                max_tokens: draw.random_range(1..40),
                is_stream: draw.random_bool(0.7),
            }
        });
        Self { seed, requests: requests.collect() }
    }
}

impl Request {
    fn body(&self, is_stream: bool) -> String {
        let words = "river bridge summer ".repeat(self.words);
        let mut body = json!({
            "model": MODEL, "temperature": 0, "max_tokens": self.max_tokens, "ignore_eos": true,
            // Some share their beginning, so that pods are warm.
            "messages": [
                {"role": "system", "content": format!("You are number {}.", self.number % 7)},
                {"role": "user", "content": format!("{words} {}", self.number)},
            ],
        });
        if is_stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        body.to_string()
    }

    /// One pod at a time fails, as the gateway sees it: the one before has come back.
    async fn begin(&self, world: &World) {
        let Some((failing, fault)) = self.fault else { return };
        let _alone = world.turn.write().await;
        let World { house, fleet, .. } = world;
        let pods = &fleet.pods()[..PODS];
        pods.iter().for_each(|pod| pod.set_fault(None));
        house.ready(PODS).await;
        pods[failing].set_fault(Some(fault));
    }
}

/// Sends one request and holds the answer against the truth.
async fn play(request: &Request, world: &World) -> Option<String> {
    request.begin(world).await;
    let _turn = world.turn.read().await;
    let World { house, fleet, .. } = world;
    let sound = fleet.pods()[PODS].addr();
    let plain = request.body(false);
    let truth = Client::default().send(sound, http::Method::POST, PATH, plain).await;
    let truth = Truth::of(&truth.json());
    let sent = post(house.addr, PATH, whole(request.body(request.is_stream)));
    let answer = house.client.open(sent).await;
    let view = within("an answer's end", View::of(answer, request.is_stream, &truth)).await;
    (view != View::Whole).then(|| format!("{request:?}: {}", view.word()))
}

async fn run(plan: &Plan) -> Toll {
    let mut pod = fast_pod();
    pod.engine.num_blocks = 400;
    let fleet = Fleet::start(u16::try_from(PODS + 1).expect("few"), pod).await.expect("free ports");
    let addrs: Vec<_> = fleet.pods()[..PODS].iter().map(Simulator::addr).collect();
    let mut config = config(&addrs);
    config.retry.budget = 1.0;
    hasten(&mut config);
    let world = World { house: House::start(config).await, fleet, turn: RwLock::new(()) };
    let answers = stream::iter(&plan.requests).map(|request| play(request, &world));
    let wrong = answers.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let World { house, fleet, .. } = world;
    for pod in fleet.pods() {
        pod.set_fault(None);
    }
    house.at_rest().await;
    for pod in fleet.pods() {
        let idle = async {
            while pod.in_flight() + pod.leases() > 0 {
                tokio::task::yield_now().await;
            }
        };
        within("the pods hold nothing", idle).await;
    }
    house.end().await;
    fleet.shutdown().await;
    Toll { wrong }
}

fn knob<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_pods_fail_at_random() {
    let seed = knob("HEARTH_CHAOS_SEED", 1);
    let plan = Plan::of(seed, knob("HEARTH_CHAOS_REQUESTS", REQUESTS));
    let toll = run(&plan).await;
    assert!(toll.wrong.is_empty(), "{plan}{toll}");
}

#[test]
fn a_seed_plays_the_same_plan_again() {
    let plan = |seed| format!("{:?}", Plan::of(seed, 50).requests);
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, requests } = self;
        writeln!(f, "HEARTH_CHAOS_SEED={seed} HEARTH_CHAOS_REQUESTS={}", requests.len())
    }
}

impl fmt::Display for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "{wrong}"))
    }
}
