mod leaving;
mod ranks;

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::discovery::Sighting;
use crate::pool::{EngineHints, Pod, Role};

const SOURCE: Source = Source::Fixed;
const NEXT: Duration = Duration::from_secs(5);

fn sighting(uid: &str, port: u16) -> Sighting {
    let addr = ([10, 0, 0, 1], port).into();
    Sighting {
        pod: Pod {
            uid: uid.into(),
            name: uid.into(),
            addr,
            role: Role::Both,
            topology: None,
            kv_ports: None,
            rank: None,
        },
        serving: true,
        grace: None,
    }
}

fn cards(id: &str) -> Vec<ModelCard> {
    vec![ModelCard { id: id.into(), parent: None, max_model_len: Some(8192), raw: "{}".into() }]
}

fn dead() -> ProbeError {
    ProbeError::Unhealthy(http::StatusCode::SERVICE_UNAVAILABLE)
}

/// A registry whose clock the test moves.
struct World {
    registry: Registry,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let registry = Registry::new(PoolSettings::default(), &[SOURCE]);
        Self { registry, now: Instant::now() }
    }

    /// With these pods, all ready.
    fn of(uids: &[&str]) -> Self {
        let mut world = Self::new();
        world.desired(uids.iter().map(|uid| sighting(uid, 8000)).collect());
        for uid in uids {
            world.probed(uid, Ok(cards("m")));
        }
        world
    }

    fn apply(&mut self, event: Event) -> Effects {
        let mut effects = Effects::default();
        self.registry.apply(event, self.now, &mut effects);
        effects
    }

    fn desired(&mut self, pods: Vec<Sighting>) -> Effects {
        self.told(Desired { pods, ..Desired::default() })
    }

    fn told(&mut self, set: Desired) -> Effects {
        self.apply(Event::Reported(SOURCE, Report::Desired(set)))
    }

    fn probed(&mut self, uid: &str, result: Result<Vec<ModelCard>, ProbeError>) -> Effects {
        let slot = self.slot(uid);
        self.apply(Event::Heard(News::Probed { slot, result, generated: false, next: NEXT }))
    }

    fn failed(&mut self, uid: &str, times: usize) {
        let slot = self.slot(uid);
        for _ in 0..times {
            self.apply(Event::Outcome { slot, outcome: Outcome::Failed, reason: "reset" });
        }
    }

    fn endpoint(&mut self, uid: &str) -> Arc<Endpoint> {
        let mut endpoints = self.registry.snapshot().endpoints.into_iter();
        endpoints.find(|endpoint| &*endpoint.pod.uid == uid).expect("the pod is known")
    }

    fn slot(&mut self, uid: &str) -> Slot {
        self.endpoint(uid).slot
    }

    fn ready(&mut self) -> Vec<String> {
        self.registry.snapshot().ready().map(|e| e.pod.uid.to_string()).collect()
    }
}

#[test]
fn the_whole_set_is_compared_and_a_pod_with_another_address_is_another_pod() {
    let mut world = World::of(&["a", "b"]);
    let (a, b) = (world.slot("a"), world.slot("b"));
    let effects = world.desired(vec![sighting("a", 8000), sighting("b", 9000), sighting("c", 1)]);
    assert_eq!(effects.removed, [b]);
    assert_eq!(effects.added.iter().map(|it| &*it.pod.uid).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(world.slot("a"), a);
    assert_ne!(world.slot("b"), b);
    assert_eq!(world.ready(), ["a"], "new pods wait for their probe");
}

#[test]
fn a_slot_is_not_given_away_before_the_index_has_let_go_of_it() {
    let mut world = World::of(&["a", "b"]);
    let gone = world.slot("a");
    world.desired(vec![sighting("b", 8000)]);
    world.desired(vec![sighting("b", 8000), sighting("c", 8000)]);
    assert_ne!(world.slot("c").index(), gone.index());
    world.registry.recycle(gone);
    world.desired(vec![sighting("b", 8000), sighting("c", 8000), sighting("d", 8000)]);
    let d = world.slot("d");
    assert_eq!((d.index(), d.generation()), (gone.index(), gone.generation() + 1));
}

#[test]
fn news_of_a_pod_that_is_gone_is_not_taken_for_its_successors() {
    let mut world = World::of(&["a", "b"]);
    let gone = world.slot("a");
    world.desired(vec![sighting("b", 8000)]);
    world.registry.recycle(gone);
    world.desired(vec![sighting("b", 8000), sighting("c", 8000)]);
    assert_eq!(world.slot("c").index(), gone.index());
    let (result, generated) = (Ok(cards("old")), false);
    world.apply(Event::Heard(News::Probed { slot: gone, result, generated, next: NEXT }));
    assert_eq!(world.ready(), ["b"]);
}

#[test]
fn a_pod_that_is_not_ready_for_a_moment_keeps_its_slot() {
    let mut world = World::of(&["a", "b"]);
    let a = world.slot("a");
    let mut unready = sighting("a", 8000);
    unready.serving = false;
    world.desired(vec![unready, sighting("b", 8000)]);
    assert_eq!(world.ready(), ["b"]);
    world.desired(vec![sighting("a", 8000), sighting("b", 8000)]);
    assert_eq!(world.ready(), ["a", "b"]);
    assert_eq!(world.slot("a"), a);
}

#[test]
fn an_empty_list_is_not_believed_while_a_pod_answers() {
    let mut world = World::of(&["a", "b"]);
    world.desired(Vec::new());
    let snapshot = world.registry.snapshot();
    assert!(snapshot.kept_because_empty);
    assert_eq!(snapshot.ready().count(), 2);

    world.desired(vec![sighting("b", 8000)]);
    assert!(!world.registry.snapshot().kept_because_empty);
    assert_eq!(world.ready(), ["b"]);
}

#[test]
fn after_an_empty_list_the_kept_pods_serve_until_a_named_one_answers() {
    let mut world = World::of(&["a", "b"]);
    world.desired(Vec::new());
    world.desired(vec![sighting("c", 8000), sighting("d", 8000)]);
    assert_eq!(world.ready(), ["a", "b"], "nobody would serve if they went now");
    world.probed("c", Err(dead()));
    assert_eq!(world.ready(), ["a", "b"]);
    world.probed("d", Ok(cards("m")));
    assert_eq!(world.ready(), ["d"]);
    assert!(!world.registry.snapshot().kept_because_empty);
}

#[test]
fn a_pod_that_answers_no_probe_in_time_is_better_than_no_pod_and_one_that_is_gone_is_not() {
    let mut world = World::of(&["a", "b"]);
    for uid in ["a", "b", "a", "b", "a", "b"] {
        world.probed(uid, Err(ProbeError::NoModels));
    }
    assert_eq!(world.ready(), [""; 0]);
    assert_eq!(world.registry.snapshot().answering().count(), 2);
    world.probed("a", Err(dead()));
    assert!(world.endpoint("b").may_answer_at_need() && !world.endpoint("a").may_answer_at_need());
    world.probed("b", Err(dead()));
    assert_eq!(world.registry.snapshot().answering().count(), 0, "nobody listens there");
}

#[test]
fn a_pod_that_two_pools_select_is_one_and_stays_until_neither_does() {
    let mut world = World::of(&[]);
    let mut told = |pool, uids: &[&str]| {
        let pods = uids.iter().map(|uid| sighting(uid, 8000)).collect();
        let set = Desired { pods, by_removal: true, trouble: None };
        let effects =
            world.apply(Event::Reported(Source::InferencePool(pool), Report::Desired(set)));
        (effects.added.len(), effects.removed.len())
    };
    assert_eq!(told(0, &["a", "both"]), (2, 0));
    assert_eq!(told(1, &["both", "b"]), (1, 0));
    assert_eq!(told(0, &["a"]), (0, 0), "the other pool selects it still");
    assert_eq!(told(0, &["a", "both"]), (0, 0));
    assert_eq!(told(1, &["b"]), (0, 0));
    assert_eq!(told(0, &["a"]), (0, 1));
    assert_eq!(told(1, &[]), (0, 1));
}

#[test]
fn an_empty_set_is_believed_when_its_last_pod_was_taken_out_of_it() {
    let mut world = World::of(&["a"]);
    let effects = world.told(Desired { by_removal: true, ..Desired::default() });
    assert_eq!(effects.removed.len(), 1);
    assert!(!world.registry.snapshot().kept_because_empty);
}

#[test]
fn a_process_that_is_gone_or_new_has_lost_its_cache_and_a_sick_one_has_not() {
    let mut world = World::of(&["a", "b"]);
    let slot = world.slot("a");
    let saw = |outcome| Event::Outcome { slot, outcome, reason: "why" };
    assert_eq!(world.apply(saw(Outcome::Failed)).lost, []);
    assert_eq!(world.probed("a", Err(dead())).lost, []);
    assert_eq!(world.apply(saw(Outcome::Refused)).lost, [slot]);
    let metrics = |prompt_tokens| {
        Event::Heard(News::Metrics {
            slot,
            hints: EngineHints { prompt_tokens: Some(prompt_tokens), ..EngineHints::default() },
        })
    };
    assert_eq!(world.apply(metrics(100.0)).lost, []);
    assert_eq!(world.apply(metrics(7.0)).lost, [slot], "it began anew");
}

#[test]
fn the_record_says_since_when_and_why() {
    let mut world = World::of(&["a", "b", "c"]);
    let ready_at = world.now;
    world.now += Duration::from_secs(9);
    world.failed("a", 3);
    let record = world.endpoint("a").record.clone();
    assert_eq!((record.since, record.failed_requests), (Some(world.now), 3));
    let failure = record.last_failure.expect("it failed");
    assert_eq!((&*failure.reason, failure.at), ("reset", world.now));
    world.failed("b", 3);
    let record = world.endpoint("b").record.clone();
    assert!(record.kept_by_share && record.since == Some(ready_at), "{record:?}");
    world.probed("b", Err(dead()));
    let record = world.endpoint("b").record.clone();
    assert!(!record.kept_by_share, "its probe has spoken");
    assert_eq!(
        &*record.last_failure.expect("it failed").reason,
        "/health says 503 Service Unavailable"
    );
    assert_eq!(record.next_probe, Some(world.now + NEXT));
}

#[test]
fn an_empty_list_is_believed_in_the_end_or_when_no_pod_answers() {
    let mut patient = World::of(&["a"]);
    patient.desired(Vec::new());
    let deadline = patient.registry.deadline().expect("the kept set has an end");
    patient.now = deadline - Duration::from_millis(1);
    assert!(patient.apply(Event::Tick).removed.is_empty());
    patient.now = deadline;
    assert_eq!(patient.apply(Event::Tick).removed.len(), 1);
    assert_eq!(patient.registry.deadline(), None);

    let mut silent = World::of(&["a"]);
    silent.desired(Vec::new());
    assert_eq!(silent.probed("a", Err(dead())).removed.len(), 1);

    let mut never_ready = World::new();
    never_ready.desired(vec![sighting("a", 8000)]);
    assert_eq!(never_ready.desired(Vec::new()).removed.len(), 1);
}

#[test]
fn at_most_half_of_the_pods_are_ejected_by_requests_and_probes_may_eject_all() {
    let mut world = World::of(&["a", "b", "c", "d"]);
    for uid in ["a", "b", "c", "d"] {
        world.failed(uid, 3);
    }
    assert_eq!(world.ready(), ["c", "d"]);
    for uid in ["c", "d"] {
        world.probed(uid, Err(dead()));
    }
    assert_eq!(world.ready(), [""; 0]);
}

#[test]
fn a_pod_that_was_ejected_is_probed_when_it_may_come_back_and_not_at_its_next_turn() {
    let mut world = World::of(&["a", "b"]);
    let slot = world.slot("a");
    world.failed("a", 3);
    let at = world.registry.deadline().expect("it may come back");
    assert_eq!(at, world.now + PoolSettings::default().health.ejected_min.get());
    world.now = at - Duration::from_millis(1);
    assert!(world.apply(Event::Tick).doubted.is_empty());
    world.now = at;
    assert_eq!(world.apply(Event::Tick).doubted, [slot]);
    assert_eq!(world.registry.deadline(), None, "once");
    world.probed("a", Ok(cards("m")));
    assert_eq!(world.ready(), ["a", "b"]);
}

#[test]
fn a_failure_asks_for_a_probe_and_an_answer_is_news_only_then() {
    let mut world = World::of(&["a", "b"]);
    assert_eq!(world.registry.suspects(), 0);
    let slot = world.slot("a");
    let effects = world.apply(Event::Outcome { slot, outcome: Outcome::Failed, reason: "reset" });
    assert_eq!(effects.doubted, [slot]);
    assert_eq!(world.registry.suspects(), 1);
    world.apply(Event::Outcome { slot, outcome: Outcome::Answered, reason: "" });
    assert_eq!(world.registry.suspects(), 0);
}

#[test]
fn the_set_is_as_old_as_its_last_confirmation_and_an_outage_says_why() {
    let mut world = World::of(&["a"]);
    let listed = world.registry.snapshot().synced_at;
    assert_eq!(listed, Some(world.now));
    world.now += Duration::from_secs(9);
    world.apply(Event::Reported(SOURCE, Report::Lost("away".into())));
    let snapshot = world.registry.snapshot();
    assert_eq!((snapshot.synced_at, snapshot.endpoints.len()), (listed, 1));
    assert_eq!(snapshot.discovery_error.as_deref(), Some("away"));
    world.told(Desired {
        pods: vec![sighting("a", 8000)],
        trouble: Some("half blind".into()),
        by_removal: false,
    });
    assert_eq!(world.registry.snapshot().discovery_error.as_deref(), Some("half blind"));
    world.apply(Event::Reported(SOURCE, Report::Alive));
    let snapshot = world.registry.snapshot();
    assert_eq!((snapshot.synced_at, snapshot.discovery_error), (Some(world.now), None));
}

#[test]
fn a_list_of_models_that_says_the_same_leaves_it_as_it_was() {
    let mut world = World::of(&["a"]);
    let before = world.endpoint("a");
    let mut again = cards("m");
    again[0].raw = r#"{"created":2}"#.into();
    world.probed("a", Ok(again));
    assert!(Arc::ptr_eq(&before.models, &world.endpoint("a").models));
    world.probed("a", Ok(cards("other")));
    assert!(world.endpoint("a").serves("other"));
}

proptest! {
    /// The naive model: the last non-empty list is the truth.
    #[test]
    fn the_pool_is_what_the_last_list_says(lists in proptest::collection::vec(
        proptest::collection::btree_map("[a-e]", 1u16..4, 1..5), 1..12,
    )) {
        let mut world = World::new();
        let mut live = HashSet::new();
        for list in lists {
            let effects = world.desired(list.iter().map(|(uid, &port)| sighting(uid, port)).collect());
            for slot in &effects.removed {
                prop_assert!(live.remove(slot));
                world.registry.recycle(*slot);
            }
            for slot in effects.added.iter().map(|it| &it.slot) {
                prop_assert!(live.insert(*slot), "a slot is given to one pod at a time");
            }
            let snapshot = world.registry.snapshot();
            let named: Vec<_> = list.iter().map(|(uid, &port)| (uid.clone(), port)).collect();
            let mut known: Vec<_> = snapshot.endpoints.iter()
                .map(|e| (e.pod.uid.to_string(), e.pod.addr.port())).collect();
            known.sort();
            prop_assert_eq!(named, known);
            prop_assert_eq!(&live, &snapshot.endpoints.iter().map(|e| e.slot).collect::<HashSet<_>>());
        }
    }
}

#[test]
fn a_cordoned_pod_gets_no_requests_however_well_it_is() {
    let mut world = World::of(&["a", "b"]);
    let slot = world.slot("a");
    assert!(world.apply(Event::Cordon { slot, is_cordoned: true }).changed);
    assert_eq!(world.endpoint("a").health, Health::Ready);
    assert!(!world.endpoint("a").is_ready() && world.endpoint("b").is_ready());
    world.probed("a", Ok(cards("m")));
    world.desired(vec![sighting("a", 8000), sighting("b", 8000)]);
    assert!(!world.endpoint("a").is_ready(), "neither a probe nor a list puts it back");
    world.apply(Event::Cordon { slot, is_cordoned: false });
    assert!(world.endpoint("a").is_ready());
    world.desired(vec![sighting("b", 8000)]);
    world.desired(vec![sighting("a", 8000), sighting("b", 8000)]);
    assert!(!world.endpoint("a").is_cordoned, "one that comes back is another");
}
