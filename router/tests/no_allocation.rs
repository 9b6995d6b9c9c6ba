//! Looking up and choosing allocate nothing: 64 pods, a prompt of 500 blocks.

use std::alloc::System;
use std::sync::Arc;

use kv_index::{EngineHash, Event, Milestones, Overlap, Slots, Stored};
use router::belief::Beliefs;
use router::bookings::Load;
use router::decide::{Leg, View, decide};
use router::feed::kv_events::KvStatus;
use router::openai::Api;
use router::policy::{self, Ask, PolicyName};
use router::pool::{Endpoint, EngineHints, Health, ModelCard, Pod, Record, Snapshot};
use router::query::{PromptBlocks, Query};
use router::session::SessionKey;
use router::{Knowledge, Trust};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const PODS: u16 = 64;
const BLOCKS: u32 = 500;

fn endpoint(slots: &mut Slots, n: u16) -> Arc<Endpoint> {
    let card = ModelCard { id: "m".into(), parent: None, max_model_len: None, raw: "{}".into() };
    Arc::new(Endpoint {
        pod: Pod::plain(&format!("pod-{n}"), ([127, 0, 0, 1], 1000 + n).into()),
        slot: slots.acquire(),
        health: Health::Ready,
        is_cordoned: false,
        models: [card].into(),
        engine: EngineHints::default(),
        kv_events: Arc::new(KvStatus::of(if n.is_multiple_of(2) {
            Trust::Exact
        } else {
            Trust::Approximate
        })),
        record: Record::default(),
    })
}

#[test]
fn overlap_and_choice_allocate_nothing() {
    let mut slots = Slots::default();
    let endpoints: Vec<_> = (0..PODS).map(|n| endpoint(&mut slots, n)).collect();
    let snapshot = Snapshot { endpoints, ..Snapshot::default() };
    let tokens: Vec<u32> = (0..BLOCKS * 16 + 1).collect();
    let knowledge = Knowledge::default();
    let root = knowledge.hasher.prompt_root(None, None, 16);
    let prompt = PromptBlocks::of_tokens(&knowledge.hasher, root, &tokens, 16);
    assert_eq!(prompt.chain.len(), BLOCKS as usize);
    for (number, endpoint) in snapshot.endpoints.iter().enumerate() {
        let depth = number * 7;
        let sent = Milestones::of(&prompt.chain[..depth]);
        knowledge.approximate.record(endpoint.slot, &sent, None, 1);
        let stored = Stored {
            blocks: (0..depth as u64).map(EngineHash).collect(),
            tokens: tokens[..depth * 16].to_vec(),
            block_tokens: 16,
            ..Stored::default()
        };
        knowledge.exact.apply(endpoint.slot, &Event::Stored(stored));
    }
    let model = Some(Arc::from("m"));
    let session = Some(SessionKey { value: "s".into(), is_secret: false });
    let query = Query { model, session, prompt, api: Some(Api::Chat), ..Query::any() };
    let (mut told, mut sent, mut candidates) = (Overlap::default(), Overlap::default(), Vec::new());
    let mut round = |policy, dice| {
        let settings = policy::Settings { policy, ..policy::Settings::default() };
        let pods = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
        knowledge.approximate.overlap(&query.prompt.milestones, pods, 2, &mut sent);
        knowledge.exact.overlap(&query.prompt.chain, &mut told);
        let beliefs = Beliefs { exact: Some(&told), approximate: &sent, now_ms: 100_000 };
        let view = View {
            snapshot: &snapshot,
            beliefs,
            query: &query,
            tried: &[],
            at_need: false,
            queue: None,
        };
        let ask = Ask { has_session: true, ticket: dice, dice };
        decide(&settings, (&view, Leg::Answer), ask, |_| Load::default(), &mut candidates)
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
