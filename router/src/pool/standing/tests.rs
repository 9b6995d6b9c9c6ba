use std::time::Duration;

use super::*;

/// What an engine says: running, waiting, tokens computed, share of its blocks in use.
type Said = (f64, f64, f64, f64);

fn hints((running, waiting, computed_tokens, kv_usage): Said) -> EngineHints {
    let prompt_tokens = Some(computed_tokens);
    EngineHints {
        running,
        waiting,
        computed_tokens,
        prompt_tokens,
        kv_usage,
        ..EngineHints::default()
    }
}

/// Reads one second apart; since which of them the engine stands still, and since which it is idle.
fn after(reads: &[Said]) -> (Option<u64>, Option<u64>) {
    let (start, mut standing) = (Instant::now(), Standing::default());
    for (second, said) in (0..).zip(reads) {
        standing.read(start + Duration::from_secs(second), &hints(*said));
    }
    let second = |at: Instant| at.duration_since(start).as_secs();
    (standing.still_since().map(second), standing.idle_since().map(second))
}

#[test]
fn an_engine_stands_still_while_it_has_work_and_computes_nothing() {
    let paused = (2.0, 1.0, 500.0, 0.2);
    for (reads, expected, why) in [
        (vec![paused], (None, None), "one read shows no motion"),
        (vec![paused, paused, paused], (Some(0), None), "since the first read of the same"),
        (vec![paused, paused, (2.0, 1.0, 501.0, 0.2)], (None, None), "a token ends it"),
        (vec![paused, (2.0, 1.0, 500.0, 0.3)], (None, None), "a chunk of a long prefill"),
        (vec![paused, (3.0, 9.0, 500.0, 0.2)], (Some(0), None), "more work is no motion"),
        (vec![(0.0, 3.0, 7.0, 0.0); 2], (Some(0), None), "asleep, they only wait"),
        (vec![(0.0, 0.0, 500.0, 0.0), paused], (None, None), "its work has just come"),
        (vec![(0.0, 0.0, 7.0, 0.0); 3], (None, Some(0)), "nothing to do"),
        (vec![(0.0, 0.0, 7.0, 0.0), (0.0, 0.0, 9.0, 0.0)], (None, Some(1)), "it had some between"),
        (vec![paused, (0.0, 0.0, 500.0, 0.0)], (None, Some(1)), "its clients have left"),
    ] {
        assert_eq!(after(&reads), expected, "{why}");
    }
}

#[test]
fn a_pod_that_counts_no_tokens_is_neither_still_nor_idle() {
    let (now, mut standing) = (Instant::now(), Standing::default());
    for second in 0..3 {
        standing.read(now + Duration::from_secs(second), &EngineHints::default());
    }
    assert_eq!((standing.still_since(), standing.idle_since()), (None, None));
}
