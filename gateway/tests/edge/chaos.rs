//! Requests while pods fail at random: nobody sees it, and nothing is held afterwards.
//!
//! The faults are those that the table of `faults` calls survivable: it grows with the table.
//! `HEARTH_CHAOS_REQUESTS` makes it longer, `HEARTH_CHAOS_SEED` plays one run's plan again.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use loadtest::simulator::{Connector, Fault, Fleet};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use router::pool::Role;
use serde_json::json;
use tokio::sync::RwLock;

use crate::faults::table;
use crate::faults::view::{Truth, View};
use crate::support::client::{Client, post, whole};
use crate::support::{House, MODEL, config_of, fast_pod, ms, within};

/// Requests of an ordinary run.
const REQUESTS: usize = 400;
/// Requests under way at once.
const AT_ONCE: usize = 12;
/// Requests between two faults.
const PACE: usize = 8;
/// How long a pod that was killed is away.
const AWAY_MS: u64 = 30;
/// How long a prefill pod keeps what is not fetched.
const LEASE_MS: u64 = 5_000;

const PATH: &str = "/v1/chat/completions";

/// Which pods there are, and which of them fail at the same time: one of each group.
#[derive(Clone, Copy, Debug)]
struct Fleets {
    roles: &'static [Role],
    groups: &'static [Range<usize>],
}

/// Pods that do everything, of which one fails.
#[expect(clippy::single_range_in_vec_init, reason = "one group of four pods")]
const ONE: Fleets = Fleets { roles: &[Role::Both; 4], groups: &[0..4] };
/// Of which two fail.
const TWO: Fleets = Fleets { roles: &[Role::Both; 5], groups: &[0..2, 2..5] };
/// Of each kind one fails.
const PAIRS: Fleets = Fleets {
    roles: &[Role::Prefill, Role::Prefill, Role::Decode, Role::Decode],
    groups: &[0..2, 2..4],
};

/// What is done, in the order of its numbers.
#[derive(Debug)]
struct Plan {
    seed: u64,
    fleets: Fleets,
    requests: Vec<Request>,
}

/// One request, and what happens before it is sent.
#[derive(Clone, Debug)]
struct Request {
    number: usize,
    /// Pods that fail from now on, if there are any; those that failed before are sound again.
    faults: Vec<(usize, Fault)>,
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
    /// Attempts after a first, and streams that moved: what the faults came to.
    survived: i64,
}

// === impl Plan ===

impl Plan {
    fn of(seed: u64, requests: usize, fleets: Fleets) -> Self {
        let faults = table::survivable();
        let mut draw = StdRng::seed_from_u64(seed);
        let requests = (0..requests).map(|number| {
            let groups = if number.is_multiple_of(PACE) { fleets.groups } else { &[] };
            let mut one_of = |group: &Range<usize>| {
                let fault = match faults[draw.random_range(0..faults.len())] {
                    Fault::Down { .. } => Fault::Down { for_ms: Some(AWAY_MS) },
                    Fault::Refuse { .. } => Fault::Refuse { for_ms: Some(AWAY_MS) },
                    fault => fault,
                };
                (draw.random_range(group.clone()), fault)
            };
            let faults = groups.iter().map(&mut one_of).collect();
            Request {
                number,
                faults,
                words: draw.random_range(1..200),
                max_tokens: draw.random_range(1..40),
                is_stream: draw.random_bool(0.7),
            }
        });
        Self { seed, fleets, requests: requests.collect() }
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

    /// No more pods fail than are meant to, as the gateway sees it: those before have come back.
    async fn begin(&self, world: &World) {
        if self.faults.is_empty() {
            return;
        }
        let _alone = world.turn.write().await;
        let World { house, fleet, .. } = world;
        fleet.pods().iter().for_each(|pod| pod.set_fault(None));
        house.ready(fleet.pods().len() - 1).await;
        for (failing, fault) in &self.faults {
            fleet.pods()[*failing].set_fault(Some(*fault));
        }
    }
}

/// Sends one request and holds the answer against the truth.
async fn play(request: &Request, world: &World) -> Option<String> {
    request.begin(world).await;
    let _turn = world.turn.read().await;
    let World { house, fleet, .. } = world;
    let sound = fleet.pods().last().expect("there is one").addr();
    let plain = request.body(false);
    let truth = Client::default().send(sound, http::Method::POST, PATH, plain).await;
    let truth = Truth::of(&truth.json());
    let sent = post(house.addr, PATH, whole(request.body(request.is_stream)));
    let answer = house.client.open(sent).await;
    let view = within("an answer's end", View::of(answer, request.is_stream, &truth)).await;
    (view != View::Whole).then(|| format!("{request:?}: {}", view.word()))
}

async fn run(plan: &Plan) -> Toll {
    let roles = plan.fleets.roles;
    let mut pod = fast_pod();
    pod.engine.num_blocks = 400;
    pod.transfer.lease = Duration::from_millis(LEASE_MS);
    if roles.contains(&Role::Prefill) {
        pod.transfer.connector = Some(Connector::Nixl);
    }
    let count = u16::try_from(roles.len() + 1).expect("few");
    let fleet = Fleet::start(count, pod).await.expect("free ports");
    let mut config = config_of(&fleet, roles);
    config.split.lease = ms(LEASE_MS);
    config.split.transfer_timeout = ms(LEASE_MS);
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
    let retries = house.metric("hearth_retries_total").await;
    let survived = retries + house.metric("hearth_migrations_total").await;
    house.end().await;
    fleet.shutdown().await;
    Toll { wrong, survived }
}

fn knob<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Plays a plan; a share of the requests of an ordinary run.
async fn assert_unseen(fleets: Fleets, share: usize) {
    let seed = knob("HEARTH_CHAOS_SEED", 1);
    let plan = Plan::of(seed, knob("HEARTH_CHAOS_REQUESTS", REQUESTS) / share, fleets);
    let toll = run(&plan).await;
    assert!(toll.wrong.is_empty(), "{plan}{toll}");
    assert!(toll.survived > 0, "no fault met a request: {plan}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_pods_fail_at_random() {
    assert_unseen(ONE, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_two_pods_fail_at_the_same_time() {
    assert_unseen(TWO, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_pairs_fail_at_random() {
    assert_unseen(PAIRS, 2).await;
}

#[test]
fn a_seed_plays_the_same_plan_again() {
    let plan = |seed| format!("{:?}", Plan::of(seed, 50, TWO).requests);
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, fleets, requests } = self;
        let count = requests.len();
        writeln!(f, "HEARTH_CHAOS_SEED={seed} HEARTH_CHAOS_REQUESTS={count} {fleets:?}")?;
        let mut failing = requests.iter().filter(|request| !request.faults.is_empty());
        failing.try_for_each(|it| writeln!(f, "from {} on: {:?}", it.number, it.faults))
    }
}

impl fmt::Display for Toll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "{wrong}"))
    }
}
