//! Where `warm` puts paced conversations: one request at a time, nothing ever in flight when the
//! next one comes. Real bodies, hashes, memory and bookings; only the pods are missing.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use kv_index::Slots;
use router::openai::Api;
use router::policy;
use router::pool::{Endpoint, EngineHints, Health, ModelCard, Pod, Pool, Record, Snapshot};
use router::{Decision, Router, Tokenizers};

/// What a token of prompt takes, on every pod.
const MS_PER_TOKEN: Duration = Duration::from_micros(100);
const TOKEN_BYTES: usize = 4;
const SYSTEMS: [usize; 4] = [100, 2_000, 12_000, 50_000];
/// A question and an answer: a block and some more each, or so short that no block of its own is full.
const TURNS: [usize; 2] = [30, 8];

/// Who speaks when.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// One conversation after the other.
    Whole,
    /// The first turns of all, then the second ones, and so on.
    Interleaved,
}

struct World {
    router: Router,
    pods: usize,
    /// Requests, by pod.
    sent: RefCell<Vec<usize>>,
}

impl World {
    fn of(pods: u16, num_blocks: Option<u64>) -> Self {
        let mut slots = Slots::default();
        let endpoint = |n: u16| {
            let models =
                [ModelCard { id: "m".into(), parent: None, max_model_len: None, raw: "{}".into() }];
            let block_size = Some(16);
            Arc::new(Endpoint {
                kv_events: Arc::default(),
                pod: Pod::plain(&format!("pod-{n}"), ([127, 0, 0, 1], 1000 + n).into()),
                slot: slots.acquire(),
                health: Health::Ready,
                is_cordoned: false,
                models: models.into(),
                engine: EngineHints { block_size, num_blocks, ..EngineHints::default() },
                record: Record::default(),
            })
        };
        let endpoints = (0..pods).map(endpoint).collect();
        let pool = Pool::still(Snapshot { endpoints, ..Snapshot::default() });
        let knowledge = Arc::default();
        let settings = policy::Settings::default();
        let router =
            Router::new(pool, settings, (knowledge, Arc::default()), Tokenizers::default());
        Self { router, pods: pods.into(), sent: RefCell::new(vec![0; pods.into()]) }
    }

    /// Sends one request and lets it be answered well. Returns the pod's place, and the tokens that
    /// it held.
    fn send(&self, body: &str, session: Option<usize>) -> (usize, u32) {
        let mut headers = HeaderMap::new();
        if let Some(session) = session {
            let value = HeaderValue::from_str(&format!("session-{session}")).expect("ASCII");
            headers.insert("x-session-id", value);
        }
        let query = self.router.read(Api::Chat, &headers, body.as_bytes()).expect("it is a chat");
        let mut placement = self.router.place(&query, &[]).expect("pods are ready");
        let Decision { prompt_tokens, matched_tokens, .. } = placement.decision;
        let uncached = prompt_tokens.saturating_sub(matched_tokens);
        let answered = Instant::now() + MS_PER_TOKEN * uncached;
        placement.answered(200, answered);
        placement.first_token(answered);
        // Half as many bytes per token as the router guesses before it has been told.
        let tokens = u32::try_from(body.len() / 2).expect("a short prompt");
        placement.usage(Some(tokens), None);
        let pod = placement.endpoint.slot.index();
        self.sent.borrow_mut()[pod] += 1;
        (pod, placement.decision.matched_tokens)
    }
}

/// Words that do not repeat, about so many tokens of them.
fn words(seed: usize, tokens: usize) -> String {
    let word =
        |n: usize| format!("{:07x} ", (seed * 7_919 + n).wrapping_mul(2_654_435_761) % (1 << 28));
    (0..tokens * TOKEN_BYTES / 8).map(word).collect()
}

fn message(role: &str, content: &str) -> String {
    format!(r#"{{"role":"{role}","content":"{content}"}}"#)
}

/// Plays conversations and returns where each turn of each went.
fn play(
    world: &World,
    (system, turn_tokens): (usize, usize),
    (sessions, turns): (usize, usize),
    order: Order,
    keyed: bool,
) -> Vec<Vec<usize>> {
    let system = message("system", &words(1, system));
    let mut histories = vec![system; sessions];
    let mut went = vec![Vec::new(); sessions];
    for step in 0..sessions * turns {
        let (session, turn) = match order {
            Order::Whole => (step / turns, step % turns),
            Order::Interleaved => (step % sessions, step / sessions),
        };
        let history = &mut histories[session];
        let question = words(1_000 + 100 * session + turn, turn_tokens);
        *history = format!("{history},{}", message("user", &question));
        let body = format!(r#"{{"model":"m","messages":[{history}]}}"#);
        went[session].push(world.send(&body, keyed.then_some(session)).0);
        let answer = words(500_000 + 100 * session + turn, turn_tokens);
        *history = format!("{history},{}", message("assistant", &answer));
    }
    went
}

/// The share of conversations that began on each pod.
fn homes(world: &World, went: &[Vec<usize>]) -> Vec<usize> {
    let began = |pod: usize| went.iter().filter(|turns| turns[0] == pod).count();
    (0..world.pods).map(began).collect()
}

/// Tokens of the system prompt and of a turn, in what order, and whether sessions have a key.
fn each_case(mut check: impl FnMut((usize, usize), Order, bool)) {
    for prompt in SYSTEMS.into_iter().flat_map(|system| TURNS.map(|turn| (system, turn))) {
        for order in [Order::Whole, Order::Interleaved] {
            for keyed in [false, true] {
                check(prompt, order, keyed);
            }
        }
    }
}

#[test]
fn two_long_conversations_get_a_pod_each_and_keep_it() {
    each_case(|prompt, order, keyed| {
        let world = World::of(2, None);
        let went = play(&world, prompt, (2, 30), order, keyed);
        let case = format!("{prompt:?} {order:?} keyed={keyed}: {went:?}");
        assert_eq!(homes(&world, &went), [1, 1], "{case}");
        let stays = |turns: &Vec<usize>| turns.iter().all(|pod| *pod == turns[0]);
        assert!(went.iter().all(stays), "{case}");
    });
}

#[test]
fn one_long_conversation_stays_where_it_began() {
    each_case(|prompt, order, keyed| {
        let world = World::of(3, None);
        let went = play(&world, prompt, (1, 30), order, keyed);
        assert!(went[0].iter().all(|pod| *pod == went[0][0]), "{prompt:?} {keyed}: {went:?}");
    });
}

#[test]
fn many_conversations_end_within_45_and_55_percent_and_none_moves() {
    each_case(|prompt, order, keyed| {
        let (sessions, turns) = if prompt.0 > 20_000 { (24, 6) } else { (32, 14) };
        let world = World::of(2, None);
        let went = play(&world, prompt, (sessions, turns), order, keyed);
        let case = format!("{prompt:?} {order:?} keyed={keyed}: {went:?}");
        let first: usize = went.iter().flatten().filter(|pod| **pod == 0).count();
        let share = first * 100 / (sessions * turns);
        assert!((45..=55).contains(&share), "{share} %: {case}");
        let moves = went.iter().flat_map(|turns| turns.windows(2)).filter(|two| two[0] != two[1]);
        assert_eq!(moves.count(), 0, "{case}");
    });
}

#[test]
fn many_single_questions_end_within_45_and_55_percent() {
    each_case(|prompt, order, keyed| {
        let world = World::of(2, None);
        let went = play(&world, prompt, (100, 1), order, keyed);
        let share = homes(&world, &went)[0];
        assert!((45..=55).contains(&share), "{prompt:?} keyed={keyed}: {share} %");
    });
}

/// Their questions are shorter than a block, and often end within the last one of the system prompt: next
/// to nothing is new to a pod that had one of them.
#[test]
fn many_tiny_questions_under_one_prompt_end_within_45_and_55_percent() {
    for system in 1_000..1_032 {
        let world = World::of(2, None);
        let text = words(7, system);
        let text = &text[..text.len() - system % 32];
        for n in 0..100 {
            let system = message("system", text);
            let body = format!(
                r#"{{"model":"m","messages":[{system},{}]}}"#,
                message("user", &format!("q{n:02}"))
            );
            world.send(&body, Some(n));
        }
        let share = world.sent.borrow()[0];
        assert!((45..=55).contains(&share), "{system}: {share} %");
    }
}

#[test]
fn four_pods_share_a_system_prompt_too() {
    let world = World::of(4, None);
    let went = play(&world, (12_000, TURNS[0]), (80, 1), Order::Whole, false);
    let homes = homes(&world, &went);
    assert!(homes.iter().all(|count| (17..=23).contains(count)), "{homes:?}");
}

#[test]
fn one_prompt_again_and_again_stays_on_one_pod() {
    for system in SYSTEMS {
        let world = World::of(3, None);
        let text = message("user", &words(9, system));
        let body = format!(r#"{{"model":"m","messages":[{text}]}}"#);
        let first = world.send(&body, None).0;
        for _ in 0..50 {
            assert_eq!(world.send(&body, None).0, first, "{system}");
        }
    }
}

/// The shape of `loadtest documents`: 30 documents of 2,048 tokens, 10 sessions of 2 turns each,
/// shuffled, over 3 pods that hold 12 documents. Here each session asks a question of its own.
#[test]
fn documents_stay_where_they_are_held() {
    let world = World::of(3, Some(12 * 280));
    let documents: Vec<_> = (0..30).map(|n| words(10_000 * (n + 1), 2_048)).collect();
    let (mut prompt, mut held, mut loads) = (0_u64, 0_u64, [0_u32; 3]);
    for step in 0..600_usize {
        // 600 and 7 have no common factor: each of 300 sessions comes twice, out of order.
        let session = step * 7 % 600 % 300;
        let question = words(5_000_000 + 100 * session, 16);
        let text = format!("{}{question}", documents[session % 30]);
        let body = format!(r#"{{"model":"m","messages":[{}]}}"#, message("user", &text));
        let (pod, matched) = world.send(&body, Some(session));
        prompt += (text.len() / 2) as u64;
        held += u64::from(matched);
        loads[pod] += 1;
    }
    let hit = 100 * held / prompt;
    assert!(hit >= 85, "{hit} % of {prompt} tokens, {loads:?}");
    let most = loads.iter().max().copied().unwrap_or_default();
    assert!(f64::from(most) <= 1.25 * 200.0, "{loads:?}");
}

#[test]
fn what_a_pod_did_not_answer_well_it_does_not_hold() {
    let world = World::of(2, None);
    let text = message("user", &words(9, 1_000));
    let body = format!(r#"{{"model":"m","messages":[{text}]}}"#);
    let place = || {
        let query = world.router.read(Api::Chat, &HeaderMap::new(), body.as_bytes());
        world.router.place(&query.expect("a chat"), &[]).expect("pods are ready")
    };
    let matched = || {
        let placement = place();
        (placement.endpoint.slot, placement.decision.matched_tokens)
    };
    let mut first = place();
    first.answered(400, Instant::now());
    let (slot, beside) = matched();
    assert!(slot == first.endpoint.slot && beside > 900, "equal prompts go together: {beside}");
    drop(first);
    assert_eq!(matched().1, 0, "a refused request fills no cache");
    assert_eq!(world.router.knowledge().approximate.blocks(), 0);
    assert!(world.router.bookings().load(slot).recent_tokens < 1e-9, "and was no work");
    let mut good = place();
    good.answered(200, Instant::now());
    drop(good);
    assert!(matched().1 > 900);
}
