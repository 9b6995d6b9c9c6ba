use super::*;

const THREE: Engines = Engines { pods: 3, block_size: 16 };

fn chat(requests: u64) -> Traffic {
    Traffic {
        warmups: 1,
        health_tokens: Some(37),
        requests,
        prompt_tokens: 193,
        held: HeldBefore::default(),
    }
}

#[test]
fn the_chat_runs_of_25_30_and_80_score_as_published() {
    for (requests, queries, round_robin, ceiling) in
        [(25, 4_862, 4_432, 4_816), (30, 5_827, 5_392, 5_776), (80, 15_477, 14_992, 15_376)]
    {
        let expected = Expectation {
            ceiling: Counters { queries, hits: ceiling },
            round_robin: Counters { queries, hits: round_robin },
            is_fresh: true,
        };
        assert_eq!(expectation(chat(requests), THREE), expected, "{requests} requests");
    }
}

#[test]
fn the_rates_are_those_of_the_old_headlines() {
    let rate = |counters: Counters| format!("{:.1}", counters.hit_rate_percent());
    let thirty = expectation(chat(30), THREE);
    assert_eq!((rate(thirty.round_robin), rate(thirty.ceiling)), ("92.5".into(), "99.1".into()));
    let eighty = expectation(chat(80), THREE);
    assert_eq!((rate(eighty.round_robin), rate(eighty.ceiling)), ("96.9".into(), "99.3".into()));
}

#[test]
fn the_raw_prompt_of_159_tokens_scores_4176_of_4770() {
    let raw = Traffic { warmups: 0, health_tokens: None, prompt_tokens: 159, ..chat(30) };
    let expected = expectation(raw, THREE);
    assert_eq!(expected.ceiling, Counters { queries: 4_770, hits: 4_176 });
    assert_eq!(expected.round_robin, Counters { queries: 4_770, hits: 27 * 144 });
}

#[test]
fn what_others_left_raises_the_ceiling_and_not_the_floor() {
    let fresh = expectation(chat(25), THREE);
    let beside = Traffic { held: HeldBefore { health: 32, prompt: 192 }, ..chat(25) };
    let expected = expectation(beside, THREE);
    assert_eq!(expected.ceiling, Counters { queries: 4_862, hits: 4_832 });
    assert_eq!((expected.round_robin, expected.is_fresh), (fresh.round_robin, false));

    let cold = Traffic { warmups: 0, health_tokens: None, ..beside };
    assert_eq!(expectation(cold, THREE).ceiling.hits, 25 * 192, "the first one was held too");
}

#[test]
fn what_it_left_itself_is_not_others() {
    let told = Traffic { held: HeldBefore { health: 16, prompt: 192 }, ..chat(25) };
    assert_eq!(expectation(told, THREE), expectation(chat(25), THREE));
}

#[test]
fn one_pod_has_no_policy_to_tell_apart() {
    let expected = expectation(chat(30), Engines { pods: 1, block_size: 16 });
    assert_eq!(expected.ceiling, expected.round_robin);
}

#[test]
fn more_warm_ups_than_pods_leave_nothing_cold() {
    let warm = Traffic { warmups: 3, ..chat(30) };
    let expected = expectation(warm, THREE);
    assert_eq!(expected.round_robin, expected.ceiling);
}

#[test]
fn a_prompt_of_one_block_or_less_can_never_hit() {
    let short = Traffic { health_tokens: None, prompt_tokens: 16, ..chat(9) };
    assert_eq!(expectation(short, THREE).ceiling.hits, 0);
}
