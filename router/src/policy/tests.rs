use super::*;
use kv_index::Slots;

const BLOCK: u32 = 16;

/// `n` idle, cold pods.
fn pods(n: usize, prompt_tokens: u32) -> Vec<Candidate> {
    let mut slots = Slots::default();
    let pod = |position| Candidate {
        uncached_tokens: prompt_tokens,
        cold_tokens: prompt_tokens / BLOCK * BLOCK,
        ..Candidate::new(slots.acquire(), position, Load::default())
    };
    (0..n).map(pod).collect()
}

fn hold(candidate: &mut Candidate, tokens: u32) {
    let prompt = candidate.matched_tokens + candidate.uncached_tokens;
    candidate.matched_tokens = tokens.min((prompt - 1) / BLOCK * BLOCK);
    candidate.uncached_tokens = prompt - candidate.matched_tokens;
    candidate.cold_tokens = (candidate.uncached_tokens - 1) / BLOCK * BLOCK;
}

fn picked(policy: PolicyName, ask: Ask, candidates: &mut [Candidate]) -> usize {
    pick(&Settings { policy, ..Settings::default() }, ask, candidates).unwrap()
}

#[test]
fn nobody_to_choose_from_is_no_choice() {
    assert_eq!(pick(&Settings::default(), Ask::default(), &mut []), None);
}

#[test]
fn one_candidate_is_everyones_choice() {
    use PolicyName::{LeastRequest, P2c, Random, RoundRobin, Session, Warm};
    for policy in [Warm, RoundRobin, Random, LeastRequest, P2c, Session] {
        let ask = Ask { has_session: true, ticket: 7, dice: u64::MAX };
        assert_eq!(picked(policy, ask, &mut pods(1, 100)), 0, "{policy}");
    }
}

#[test]
fn round_robin_takes_turns_and_random_covers_everyone() {
    let turn =
        |ticket| picked(PolicyName::RoundRobin, Ask { ticket, ..Ask::default() }, &mut pods(3, 1));
    assert_eq!([0, 1, 2, 3].map(turn), [0, 1, 2, 0]);
    let roll = |dice| picked(PolicyName::Random, Ask { dice, ..Ask::default() }, &mut pods(3, 1));
    assert_eq!([3, 4, 5].map(roll), [0, 1, 2]);
}

#[test]
fn p2c_takes_the_less_busy_of_two_different_pods() {
    let mut candidates = pods(3, 1);
    candidates[0].load.requests = 9;
    for dice in (0..3_u64).flat_map(|low| (0..2_u64).map(move |high| high << 32 | low)) {
        let row = picked(PolicyName::P2c, Ask { dice, ..Ask::default() }, &mut candidates);
        assert_ne!(row, 0, "the busiest pod always loses: dice {dice}");
    }
}

#[test]
fn a_session_stays_on_its_pod_until_the_pod_is_beyond_the_bound() {
    let mut candidates = pods(3, 1);
    for (candidate, rank) in candidates.iter_mut().zip([10, 30, 20]) {
        candidate.session_rank = rank;
        candidate.load.requests = 4;
    }
    let ask = Ask { has_session: true, ..Ask::default() };
    assert_eq!(picked(PolicyName::Session, ask, &mut candidates), 1);
    candidates[1].load.requests = 12;
    assert_eq!(picked(PolicyName::Session, ask, &mut candidates), 2, "next in the session's order");
}

#[test]
fn warm_goes_where_the_prompt_is_and_leaves_when_that_pod_is_swamped() {
    let mut candidates = pods(3, 1_500);
    hold(&mut candidates[2], 1_024);
    assert_eq!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 2);
    candidates[2].load.prefill_tokens = 2_000;
    assert_ne!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 2);
    candidates[2].load = Load { requests: 200, ..Load::default() };
    assert_ne!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 2, "decode pressure");
}

#[test]
fn warm_spares_the_pod_whose_blocks_are_in_use() {
    let mut candidates = pods(2, 1_000);
    candidates[0].eviction_age_ms = Some(500);
    candidates[1].eviction_age_ms = Some(600_000);
    assert_eq!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 1);
}

#[test]
fn warm_prefers_the_sessions_pod_among_equals_but_not_over_a_warm_one() {
    let ask = Ask { has_session: true, ..Ask::default() };
    let mut candidates = pods(3, 200);
    candidates[1].session_rank = 9;
    assert_eq!(picked(PolicyName::Warm, ask, &mut candidates), 1);
    hold(&mut candidates[2], 192);
    assert_eq!(picked(PolicyName::Warm, ask, &mut candidates), 2);
}

/// The scenario with real prompts, hashes and bookings is in `tests/spread.rs`.
#[test]
fn a_new_conversation_under_a_shared_prompt_goes_where_less_was_done_and_the_next_turn_goes_home() {
    for system in [112_u32, 2_048, 12_000, 50_000] {
        let mut candidates = pods(2, system + 200);
        hold(&mut candidates[0], system);
        candidates[0].load.recent_tokens = f64::from(system + 200);
        assert_eq!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 1, "{system}");

        let mut home = candidates.clone();
        home[0].is_home = true;
        assert_eq!(picked(PolicyName::Warm, Ask::default(), &mut home), 0, "{system}");

        // Both hold it: what is recent decides, but never against work in flight.
        hold(&mut candidates[1], system);
        candidates[1].load.recent_tokens = f64::from(system);
        assert_eq!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 1, "{system}");
        candidates[1].load.prefill_tokens = 200;
        assert_eq!(picked(PolicyName::Warm, Ask::default(), &mut candidates), 0, "{system}");
    }
}

#[test]
fn one_prompt_repeated_stays_on_one_pod() {
    let mut candidates = pods(3, 193);
    hold(&mut candidates[1], 192);
    candidates[1].load.recent_tokens = 192.0;
    candidates[1].is_home = true;
    for dice in 0..50 {
        assert_eq!(picked(PolicyName::Warm, Ask { dice, ..Ask::default() }, &mut candidates), 1);
    }
}

#[test]
fn the_table_shows_every_candidate_and_its_cost() {
    let mut candidates = pods(2, 100);
    picked(PolicyName::Warm, Ask::default(), &mut candidates);
    let table = Table { rows: &candidates, chosen: Some(1), pods: &[] }.to_string();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.ends_with(" 0 100 0 0 0 - 10.000 chosen\n"), "{table}");
    let terms = candidates[0].terms;
    assert!((terms.total() - candidates[0].cost_ms).abs() < 1e-9, "{terms:?}");
}
