//! What an answer's `cached_tokens` shows of what its pod's events had promised.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use kv_index::{EngineHash, Event, Overlap, Removed, Slots, Stored};
use router::feed::kv_events::{KvSink, KvStatus, Predictions};
use router::openai::Api;
use router::policy;
use router::pool::{Endpoint, EngineHints, Health, ModelCard, Pod, Pool, Record, Snapshot};
use router::query::Query;
use router::{Knowledge, Placement, Router, Tokenizers, Trust, Turn};

/// Tokens of a block.
const BLOCK: u32 = 4;
/// The prompt: five blocks, of which an engine can find four.
const PROMPT: u32 = 5 * BLOCK;

struct World {
    router: Router,
    knowledge: Arc<Knowledge>,
    endpoint: Arc<Endpoint>,
}

impl World {
    /// One pod that told that it holds the whole prompt.
    fn new(trust: Trust) -> Self {
        let model =
            ModelCard { id: "m".into(), parent: None, max_model_len: None, raw: "{}".into() };
        let endpoint = Arc::new(Endpoint {
            kv_events: Arc::new(KvStatus::of(trust)),
            pod: Pod::plain("a", ([127, 0, 0, 1], 1).into()),
            slot: Slots::default().acquire(),
            health: Health::Ready,
            is_cordoned: false,
            models: [model].into(),
            engine: EngineHints { block_size: Some(BLOCK), ..EngineHints::default() },
            record: Record::default(),
        });
        let endpoints = vec![Arc::clone(&endpoint)];
        let pool = Pool::still(Snapshot { endpoints, ..Snapshot::default() });
        let knowledge = Arc::<Knowledge>::default();
        let shared = (Arc::clone(&knowledge), Arc::default());
        let router = Router::new(pool, policy::Settings::default(), shared, Tokenizers::default());
        let world = Self { router, knowledge, endpoint };
        world.store();
        world
    }

    fn query(&self) -> Query {
        self.query_with("")
    }

    fn query_with(&self, more: &str) -> Query {
        let ids: Vec<u32> = (0..PROMPT).collect();
        let body = format!(r#"{{"model":"m","prompt":{ids:?}{more}}}"#);
        let headers = HeaderMap::new();
        let query = self.router.read(Api::Completions, &headers, body.as_bytes());
        query.expect("it is a completion")
    }

    fn place(&self) -> Placement {
        self.router.place(&self.query(), &[]).expect("the pod is ready")
    }

    fn place_at(&self, query: &Query, now: Instant) -> Placement {
        let turn = Turn { now, dice: 0, rule: None };
        self.router.place_at(query, turn).expect("the pod is ready")
    }

    fn tell(&self, event: &Event) {
        self.knowledge.apply(self.endpoint.slot, event);
    }

    /// The engine has filled the prompt's blocks, named 0 to 4.
    fn store(&self) {
        self.tell(&Event::Stored(Stored {
            blocks: (0..5).map(EngineHash).collect(),
            tokens: (0..PROMPT).collect(),
            block_tokens: BLOCK,
            ..Stored::default()
        }));
    }

    fn remove(&self, blocks: &[u64]) {
        let blocks = blocks.iter().copied().map(EngineHash).collect();
        self.tell(&Event::Removed(Removed { blocks, ..Removed::default() }));
    }

    fn predictions(&self) -> Predictions {
        self.endpoint.kv_events.report().predictions
    }

    /// Blocks of the prompt that the pod is known to hold.
    fn known_blocks(&self) -> u32 {
        let mut overlap = Overlap::default();
        self.knowledge.exact.overlap(&self.query().prompt.chain, &mut overlap);
        overlap.blocks(self.endpoint.slot)
    }
}

fn answer(mut placement: Placement, cached: u32) {
    placement.usage(Some(PROMPT), Some(cached));
}

#[test]
fn what_the_engine_reuses_as_promised_is_equal() {
    let world = World::new(Trust::Exact);
    answer(world.place(), 4 * BLOCK);
    assert_eq!(world.predictions(), Predictions { equal: 1, ..Predictions::default() });
}

#[test]
fn an_over_prediction_that_nothing_explains_takes_the_suffix_back() {
    let world = World::new(Trust::Exact);
    answer(world.place(), BLOCK);
    assert_eq!(world.predictions(), Predictions::default(), "the pod may yet explain it");
    world.endpoint.kv_events.story_is_told();
    let over_tokens = u64::from(3 * BLOCK);
    assert_eq!(world.predictions(), Predictions { over: 1, over_tokens, ..Predictions::default() });
    assert_eq!(world.known_blocks(), 1);
}

#[test]
fn what_others_pushed_out_while_it_waited_in_the_engine_is_overtaken_and_keeps_what_is_known() {
    let world = World::new(Trust::Exact);
    let placement = world.place();
    // Another request takes the tail's place; then this one's turn comes, and it fills them anew.
    world.remove(&[4]);
    world.remove(&[3, 2]);
    world.store();
    answer(placement, 2 * BLOCK);
    assert_eq!(world.predictions(), Predictions { overtaken: 1, ..Predictions::default() });
    assert_eq!(world.known_blocks(), 5, "what it told last is so");
}

#[test]
fn an_answer_that_comes_before_the_events_that_explain_it_waits_for_them() {
    let world = World::new(Trust::Exact);
    let placement = world.place();
    answer(placement, 2 * BLOCK);
    world.remove(&[4, 3, 2]);
    world.store();
    world.endpoint.kv_events.story_is_told();
    assert_eq!(world.predictions(), Predictions { overtaken: 1, ..Predictions::default() });
    assert_eq!(world.known_blocks(), 5);
}

#[test]
fn a_reset_that_was_told_only_with_this_requests_own_step_is_overtaken() {
    let world = World::new(Trust::Exact);
    let placement = world.place();
    world.tell(&Event::Cleared);
    world.store();
    answer(placement, 0);
    assert_eq!(world.predictions(), Predictions { overtaken: 1, ..Predictions::default() });
}

#[test]
fn a_loss_that_explains_only_a_part_is_over() {
    let world = World::new(Trust::Exact);
    let placement = world.place();
    world.remove(&[4, 3]);
    answer(placement, BLOCK);
    world.endpoint.kv_events.story_is_told();
    assert_eq!((world.predictions().over, world.predictions().overtaken), (1, 0));
}

#[test]
fn a_history_that_is_not_told_to_its_end_promises_nothing() {
    let world = World::new(Trust::Retelling);
    let placement = world.place();
    assert_eq!(placement.decision.matched_tokens, 0);
    assert_eq!(placement.decision.trust.word(), "catching-up");
    answer(placement, 0);
    assert_eq!(world.predictions(), Predictions { equal: 1, ..Predictions::default() });
}

/// An answer, of which the pod has found nothing in its cache, to a request for which vLLM does not
/// look there.
fn answer_uncached(world: &World, now: Instant) {
    let query = world.query_with(r#","prompt_logprobs":0"#);
    let mut placement = world.place_at(&query, now);
    assert_eq!(placement.decision.matched_tokens, 0, "nothing is promised");
    placement.usage(Some(PROMPT), Some(0));
    world.endpoint.kv_events.story_is_told();
}

#[test]
fn what_an_engine_does_not_look_for_says_nothing_of_what_it_told() {
    let world = World::new(Trust::Exact);
    for _ in 0..3 {
        answer_uncached(&world, Instant::now());
    }
    assert_eq!(world.predictions(), Predictions::default());
    assert_eq!(world.known_blocks(), 5);
}

#[test]
fn nor_of_what_it_was_sent() {
    let world = World::new(Trust::Approximate);
    let now = Instant::now();
    world.place().answered(200, now);
    let later = now + Duration::from_secs(60);
    answer_uncached(&world, later);
    let mut placement = world.place_at(&world.query(), later);
    assert_eq!(placement.decision.matched_tokens, 4 * BLOCK, "it is remembered still");
    // Where it does look, finding nothing means that all of that age is gone.
    placement.usage(Some(PROMPT), Some(0));
    drop(placement);
    let placement = world.place_at(&world.query(), later);
    assert_eq!(placement.decision.matched_tokens, 0);
}

#[test]
fn what_was_found_of_the_last_of_several_prompts_says_nothing_of_the_first() {
    let world = World::new(Trust::Approximate);
    let now = Instant::now();
    world.place().answered(200, now);
    let later = now + Duration::from_secs(60);
    let first: Vec<u32> = (0..PROMPT).collect();
    let query = world.query_with(&format!(r#","prompt":[{first:?},[7]]"#));
    for _ in 0..2 {
        let mut placement = world.place_at(&query, later);
        assert_eq!(placement.decision.matched_tokens, 4 * BLOCK);
        placement.usage(Some(PROMPT + 1), Some(0));
    }
}
