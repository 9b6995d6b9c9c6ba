//! The hot path allocates nothing: looking 500 blocks up in 64 pods, and choosing one of them.
//!
//! Alone in its program, because the counting allocator counts what any thread does.

use std::alloc::System;
use std::sync::Arc;

use kv_index::{ApproximateIndex, ChainHasher, Overlap, Slots};
use router::bookings::Bookings;
use router::decide::{View, decide};
use router::openai::Api;
use router::policy::{Ask, PolicyName, Settings};
use router::pool::{Endpoint, EngineHints, Health, ModelCard, Pod, Role, Snapshot};
use router::query::{PromptBlocks, Query};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const POLICIES: [PolicyName; 6] = [
    PolicyName::Warm,
    PolicyName::RoundRobin,
    PolicyName::Random,
    PolicyName::LeastRequest,
    PolicyName::P2c,
    PolicyName::Session,
];
const PODS: u16 = 64;
const BLOCKS: u32 = 500;
const BLOCK_TOKENS: u32 = 16;
const ROUNDS: u64 = 100;

fn snapshot() -> Snapshot {
    let models: Arc<[ModelCard]> = Arc::new([ModelCard {
        id: Arc::from("model"),
        parent: None,
        max_model_len: Some(131_072),
        raw: Arc::from("{}"),
    }]);
    let mut slots = Slots::default();
    let endpoints = (0..PODS).map(|number| {
        let name: Arc<str> = Arc::from(format!("pod-{number}"));
        let addr = ([10, 0, 0, 1], 8000 + number).into();
        Arc::new(Endpoint {
            pod: Pod { uid: Arc::clone(&name), name, addr, role: Role::Both },
            slot: slots.acquire(),
            health: Health::Ready,
            models: Arc::clone(&models),
            engine: EngineHints::default(),
        })
    });
    Snapshot { endpoints: endpoints.collect(), ..Snapshot::default() }
}

fn query() -> Query {
    let tokens: Vec<u32> = (0..BLOCKS * BLOCK_TOKENS + 1).collect();
    let hasher = ChainHasher::with_seed(1);
    let prompt = PromptBlocks::of_tokens(&hasher, &["model"], &tokens, BLOCK_TOKENS);
    assert_eq!(prompt.chain.len(), BLOCKS as usize);
    Query {
        api: Api::Chat,
        model: Some(Arc::from("model")),
        stream: true,
        session: Some(Arc::from("session")),
        guarded: Vec::new(),
        prompt,
    }
}

#[test]
fn looking_up_and_deciding_allocate_nothing() {
    let (snapshot, query) = (snapshot(), query());
    let index = ApproximateIndex::new(kv_index::Settings::default());
    for (position, endpoint) in snapshot.endpoints.iter().enumerate() {
        let held = query.prompt.chain.len() * position / snapshot.endpoints.len();
        index.record(endpoint.slot, &query.prompt.chain[..held], None, 1);
    }
    let bookings = Arc::new(Bookings::default());
    let mut overlap = Overlap::default();
    let mut once = |policy: PolicyName, dice: u64| {
        let slots = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
        index.overlap(&query.prompt.chain, slots, 2, &mut overlap);
        let view = View { snapshot: &snapshot, overlap: &overlap, query: &query, tried: &[] };
        let settings = Settings { policy, ..Settings::default() };
        let placed = bookings.book(|desk| {
            let ask = Ask { has_session: true, ticket: desk.ticket(), dice };
            let mut candidates = std::mem::take(&mut desk.candidates);
            let load = |slot| (desk.admit(slot), index.eviction_age_ms(slot, 2));
            let row = decide(&settings, &view, ask, load, &mut candidates);
            let chosen = row.map(|row| candidates[row]);
            assert_eq!(candidates.len(), usize::from(PODS));
            desk.candidates = candidates;
            chosen.map(|chosen| (chosen, chosen.slot, chosen.cold_tokens))
        });
        assert!(placed.is_some(), "a pod is always there");
    };
    for policy in POLICIES {
        once(policy, 0); // the scratch grows to the fleet's size
        let region = Region::new(ALLOCATOR);
        for dice in 1..=ROUNDS {
            once(policy, dice);
        }
        let change = region.change();
        let found = change.allocations + change.reallocations;
        println!("allocations {} {found}", policy.name());
        assert_eq!(found, 0, "{}: {change:?}", policy.name());
    }
}
