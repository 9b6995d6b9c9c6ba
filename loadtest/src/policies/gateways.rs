//! One gateway or several, each Hearth's own router: what it believes, books and learns is real,
//! and only the clock, the dice and the pods are not.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_index::{EngineHash, Event, Removed, Slot, Slots, Stored};
use router::feed::kv_events::KvStatus;
use router::openai::{Api, StreamFormat};
use router::policy;
use router::pool::{Endpoint, EngineHints, Health, Pod, Pool, Record, Role, Snapshot};
use router::query::{PromptBlocks, Query};
use router::session::SessionKey;
use router::{Decision, End, Placement, Router, Tokenizers, Trust, Turn};

use super::fleet::{Fleet, Rates};
use super::rules::{Pods, Rule};
use super::traffic::Request;
use crate::simulator::CacheEvent;
use crate::workload::mix;

/// All gateways in front of one fleet.
#[derive(Debug)]
pub(super) struct Gateways {
    gateways: Vec<Gateway>,
    slots: Vec<Slot>,
    rule: Rule,
    rates: Rates,
    seed: u64,
    block_tokens: usize,
    started: Instant,
}

#[derive(Debug)]
struct Gateway {
    router: Router,
    /// Per pod: see [`Pods::held_blocks`].
    held_blocks: Vec<usize>,
}

/// A request's place.
#[derive(Debug)]
pub(super) struct Placed {
    /// The pod's position.
    pub(super) pod: usize,
    gateway: usize,
    blocks: usize,
    placement: Placement,
    /// The time to the first token that the router expected; zero: its rule expects nothing.
    pub(super) expected: Duration,
}

/// What the pods say of themselves when they are asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    pub(super) waiting: Vec<usize>,
    pub(super) usage: Vec<f64>,
}

// === impl Gateways ===

impl Gateways {
    pub(super) fn new(fleet: &Fleet, rule: Rule, seed: u64) -> Self {
        let started = Instant::now();
        let mut acquired = Slots::default();
        let slots: Vec<Slot> = (0..fleet.pods).map(|_| acquired.acquire()).collect();
        let router = |_| {
            let pods = slots.iter().enumerate();
            let endpoints = pods.map(|(number, slot)| endpoint(fleet, number, *slot)).collect();
            let pool = Pool::still(Snapshot { endpoints, ..Snapshot::default() });
            let settings = policy::Settings { decisions_kept: 0, ..policy::Settings::default() };
            let router = Router::new(pool, settings, Default::default(), Tokenizers::default());
            Gateway { router, held_blocks: vec![0; fleet.pods] }
        };
        let gateways = (0..fleet.gateways.max(1)).map(router).collect();
        let (rates, block_tokens) = (fleet.rates, fleet.engine.block_size);
        Self { gateways, slots, rule, rates, seed, block_tokens, started }
    }

    /// Places request `number`; none only when there is no pod.
    pub(super) fn place(
        &mut self,
        (number, request): (usize, &Request),
        now: Duration,
        gauges: &Gauges,
    ) -> Option<Placed> {
        let count = self.gateways.len() as u64;
        // As a load balancer spreads connections: a session's next turn comes to any gateway.
        let which = usize::try_from(mix([self.seed, number as u64, 1]) % count).ok()?;
        let gateway = &mut self.gateways[which];
        let query = query(&gateway.router, request, self.block_tokens);
        let (rule, rates) = (self.rule, self.rates);
        let pods = Pods {
            held_blocks: &gateway.held_blocks,
            waiting: &gauges.waiting,
            usage: &gauges.usage,
            block_tokens: self.block_tokens,
        };
        let expected = Cell::new(Duration::ZERO);
        let expects = &expected;
        let rule = move |ask, rows: &mut [policy::Candidate]| {
            for row in &mut *rows {
                row.load.prefill_ms_per_token *= rates.factor(row.position);
            }
            let chosen = rule.pick(pods, ask, rows)?;
            expects.set(Duration::from_secs_f64(rows[chosen].terms.ttft_ms() / 1e3));
            Some(chosen)
        };
        let dice = mix([self.seed, number as u64, 2]);
        let turn = Turn { now: self.started + now, dice, rule: Some(&rule) };
        let placement = gateway.router.place_at(&query, turn).ok()?;
        let pod = self.slots.iter().position(|slot| *slot == placement.endpoint.slot)?;
        let blocks = request.prompt_tokens.div_ceil(self.block_tokens);
        gateway.held_blocks[pod] += blocks;
        let expected = expected.get();
        Some(Placed { pod, gateway: which, blocks, placement, expected })
    }

    /// The first token of a request came.
    pub(super) fn first_token(&self, placed: &mut Placed, cached_tokens: usize, now: Duration) {
        let now = self.started + now;
        placed.placement.answered(200, now);
        placed.placement.first_token(now);
        let Decision { prompt_tokens, trust, .. } = placed.placement.decision;
        // A pod that tells has told of this very request by now, and nothing is left to correct.
        let cached = Some(cached_tokens.try_into().unwrap_or(0));
        let cached = cached.filter(|_| trust == Trust::Approximate);
        placed.placement.usage(Some(prompt_tokens), cached);
    }

    /// Its last token came.
    pub(super) fn done(&mut self, placed: Placed) {
        let held = &mut self.gateways[placed.gateway].held_blocks[placed.pod];
        *held = held.saturating_sub(placed.blocks);
    }

    /// A pod tells what happened in its cache: every gateway hears it.
    pub(super) fn hear(&self, pod: usize, events: Vec<CacheEvent>) {
        for event in events.into_iter().map(told) {
            for gateway in &self.gateways {
                gateway.router.knowledge().exact.apply(self.slots[pod], &event);
            }
        }
    }
}

/// The request as the router reads it. A block's name stands for its tokens.
fn query(router: &Router, request: &Request, block_tokens: usize) -> Query {
    let full = (request.prompt_tokens / block_tokens).min(request.blocks.len());
    let names = &request.blocks[..full];
    let hasher = &router.knowledge().hasher;
    let mut prompt = PromptBlocks::of_tokens(hasher, hasher.prompt_root(None, None, 1), names, 1);
    prompt.end = End::of(&prompt.milestones, names, 1, 0);
    prompt.tokens = request.prompt_tokens.try_into().unwrap_or(u32::MAX);
    prompt.block_tokens = block_tokens.try_into().unwrap_or(u32::MAX);
    let home = router.home(&prompt, names, 1);
    let value = request.session.to_string().into();
    let session = Some(SessionKey { value, is_secret: false });
    let api = Api::Chat;
    // All are streams: their first tokens are told.
    let (choices, wants_usage) = (1, true);
    let format = StreamFormat { api, choices, wants_usage, wants_ids: false, has_ids: false };
    let (api, stream) = (Some(api), Some(format));
    Query { api, session, home, prompt, stream, ..Query::any() }
}

fn endpoint(fleet: &Fleet, number: usize, slot: Slot) -> Arc<Endpoint> {
    let name: Arc<str> = format!("pod-{number}").into();
    let trust = if fleet.engine.kv_events { Trust::Exact } else { Trust::Approximate };
    let engine = EngineHints {
        block_size: fleet.engine.block_size.try_into().ok(),
        num_blocks: fleet.engine.num_blocks.try_into().ok(),
        ..EngineHints::default()
    };
    Arc::new(Endpoint {
        kv_events: Arc::new(KvStatus::of(trust)),
        pod: Pod {
            uid: Arc::clone(&name),
            name,
            addr: ([127, 0, 0, 1], 1).into(),
            role: Role::Both,
            topology: None,
            kv_ports: None,
            rank: None,
        },
        slot,
        health: Health::Ready,
        is_cordoned: false,
        models: Arc::new([]),
        engine,
        record: Record::default(),
    })
}

fn told(event: CacheEvent) -> Event {
    match event {
        CacheEvent::Stored { keys, parent, tokens, .. } => Event::Stored(Stored {
            blocks: keys.into_iter().map(EngineHash).collect(),
            parent: parent.map(EngineHash),
            tokens,
            block_tokens: 1,
            ..Stored::default()
        }),
        CacheEvent::Removed(key) => {
            Event::Removed(Removed { blocks: vec![EngineHash(key)], ..Removed::default() })
        }
        CacheEvent::Cleared => Event::Cleared,
    }
}
