//! Looking up and choosing allocate nothing: 64 pods, a prompt of 500 blocks.

use std::alloc::System;
use std::sync::Arc;

use kv_index::{ApproximateIndex, ChainHasher, Milestones, Overlap, Settings, Slots};
use router::bookings::Load;
use router::decide::{View, decide};
use router::openai::Api;
use router::policy::{self, Ask, PolicyName};
use router::pool::{Endpoint, EngineHints, Health, ModelCard, Pod, Record, Role, Snapshot};
use router::query::{PromptBlocks, Query};
use router::session::SessionKey;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PODS: u16 = 64;
const BLOCKS: u32 = 500;

fn endpoint(slots: &mut Slots, n: u16) -> Arc<Endpoint> {
    let card = ModelCard { id: "m".into(), parent: None, max_model_len: None, raw: "{}".into() };
    let name: Arc<str> = format!("pod-{n}").into();
    let addr = ([127, 0, 0, 1], 1000 + n).into();
    Arc::new(Endpoint {
        pod: Pod { uid: Arc::clone(&name), name, addr, role: Role::Both },
        slot: slots.acquire(),
        health: Health::Ready,
        models: [card].into(),
        engine: EngineHints::default(),
        record: Record::default(),
    })
}

#[test]
fn overlap_and_choice_allocate_nothing() {
    let mut slots = Slots::default();
    let endpoints: Vec<_> = (0..PODS).map(|n| endpoint(&mut slots, n)).collect();
    let snapshot = Snapshot { endpoints, ..Snapshot::default() };
    let tokens: Vec<u32> = (0..BLOCKS * 16 + 1).collect();
    let hasher = ChainHasher::with_seed(1);
    let prompt = PromptBlocks::of_tokens(&hasher, &["m"], &tokens, 16);
    assert_eq!(prompt.chain.len(), BLOCKS as usize);
    let index = ApproximateIndex::new(Settings::default());
    for (depth, endpoint) in snapshot.endpoints.iter().enumerate() {
        index.record(endpoint.slot, &Milestones::of(&prompt.chain[..depth * 7]), None, 1);
    }
    let model = Some(Arc::from("m"));
    let session = Some(SessionKey { value: "s".into(), is_secret: false });
    let query = Query { model, session, prompt, api: Some(Api::Chat), ..Query::any() };
    let (mut overlap, mut candidates) = (Overlap::default(), Vec::new());
    let mut round = |policy, dice| {
        let settings = policy::Settings { policy, ..policy::Settings::default() };
        let pods = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
        index.overlap(&query.prompt.milestones, pods, 2, &mut overlap);
        let view = View { snapshot: &snapshot, overlap: &overlap, query: &query, tried: &[] };
        let ask = Ask { has_session: true, ticket: dice, dice };
        decide(&settings, &view, ask, |_| Load::default(), &mut candidates)
    };
    assert_eq!(round(PolicyName::Warm, 0), Some(63), "the deepest pod; scratch has grown now");
    let policies = [
        PolicyName::Warm,
        PolicyName::RoundRobin,
        PolicyName::Random,
        PolicyName::LeastRequest,
        PolicyName::P2c,
        PolicyName::Session,
    ];
    let region = Region::new(ALLOCATOR);
    for dice in 0..100 {
        for policy in policies {
            assert!(round(policy, dice).is_some());
        }
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}
