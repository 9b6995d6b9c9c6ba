//! One test per arrow of the table.

use super::*;

/// Batches of one process are published a second apart; another process's later.
fn batch(seq: u64) -> Arrival {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let published_at_s = 1000.0 + seq as f64;
    Arrival { mark: Mark { seq, published_at_s }, clears: false, readable: true }
}

fn restarted(seq: u64) -> Arrival {
    let mut batch = batch(seq);
    batch.mark.published_at_s += 5000.0;
    batch
}

fn clearing(batch: Arrival) -> Arrival {
    Arrival { clears: true, ..batch }
}

fn unreadable(seq: u64) -> Arrival {
    let mark = Mark { seq, published_at_s: f64::NAN };
    Arrival { mark, clears: false, readable: false }
}

const NOTHING: Orders = Orders { drop_blocks: false, batch: Fate::Ignore, replay_from: None };
const APPLY: Orders = Orders { batch: Fate::Apply, ..NOTHING };
const HOLD: Orders = Orders { batch: Fate::Hold, ..NOTHING };
const DROP: Orders = Orders { drop_blocks: true, ..NOTHING };
const DROP_AND_APPLY: Orders = Orders { drop_blocks: true, ..APPLY };

fn replay(from: u64) -> Orders {
    Orders { replay_from: Some(from), ..NOTHING }
}

fn uncertain(doubt: Doubt) -> Trust {
    Trust::Uncertain(doubt)
}

/// Feeds inputs whose orders do not matter.
fn after(mut machine: Machine, inputs: &[Input]) -> Machine {
    for input in inputs {
        machine.step(*input);
    }
    machine
}

/// Connected, and told everything up to this batch.
fn exact(last: u64, replays: bool) -> Machine {
    let mut machine = after(Machine::new(replays), &[Input::Connected]);
    if replays {
        machine.step(Input::ReplayEnded);
    }
    for seq in 0..=last {
        assert_eq!(machine.step(Input::Live(batch(seq))), APPLY);
    }
    assert_eq!(machine.trust(), Trust::Exact);
    machine
}

fn step(machine: &mut Machine, input: Input, orders: Orders, trust: Trust) {
    assert_eq!(machine.step(input), orders, "{input:?}");
    assert_eq!(machine.trust(), trust, "{input:?}");
}

// === approximate ===

#[test]
fn a_stream_with_a_history_is_caught_up_with_from_its_beginning() {
    let mut machine = Machine::new(true);
    assert_eq!(machine.trust(), Trust::Approximate);
    step(&mut machine, Input::Connected, replay(0), Trust::CatchingUp);
}

#[test]
fn without_a_history_the_first_batch_of_all_makes_exact() {
    let mut machine = Machine::new(false);
    step(&mut machine, Input::Connected, NOTHING, Trust::Approximate);
    step(&mut machine, Input::Live(batch(0)), APPLY, Trust::Exact);
}

#[test]
fn without_a_history_a_later_first_batch_is_a_late_start() {
    let mut machine = after(Machine::new(false), &[Input::Connected]);
    step(&mut machine, Input::Live(batch(5)), APPLY, uncertain(Doubt::LateStart));
}

#[test]
fn a_first_batch_that_clears_makes_exact() {
    let mut machine = after(Machine::new(false), &[Input::Connected]);
    step(&mut machine, Input::Live(clearing(batch(5))), APPLY, Trust::Exact);
}

#[test]
fn a_pod_that_tells_nothing_stays_approximate_whatever_time_brings() {
    let mut machine = Machine::new(false);
    let whatever = [Input::Idle, Input::Silent, Input::Retry, Input::SelfCheckFailed];
    for input in whatever.into_iter().chain([Input::Reconciled, Input::Disconnected]) {
        step(&mut machine, input, NOTHING, Trust::Approximate);
    }
}

// === catching up ===

#[test]
fn a_whole_history_makes_exact_and_live_batches_wait_for_it() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::Live(batch(2)), HOLD, Trust::CatchingUp);
    for seq in 0..3 {
        step(&mut machine, Input::Replayed(batch(seq)), APPLY, Trust::CatchingUp);
    }
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(2)), NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(3)), APPLY, Trust::Exact);
}

#[test]
fn an_empty_history_of_a_fresh_pod_makes_exact() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(0)), APPLY, Trust::Exact);
}

#[test]
fn a_history_without_its_beginning_is_a_late_start() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::Replayed(batch(40)), APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::LateStart));
}

#[test]
fn a_clear_within_a_late_history_makes_exact() {
    let machine = after(Machine::new(true), &[Input::Connected]);
    let mut machine =
        after(machine, &[batch(40), clearing(batch(41)), batch(42)].map(Input::Replayed));
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_hole_in_the_history_is_a_gap() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Live(batch(9)), HOLD.and(replay(3)), Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(3)), NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(7)), DROP_AND_APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::Gap));
}

#[test]
fn a_history_that_no_longer_has_our_last_batch_proves_nothing() {
    let mut machine = exact(3, true);
    machine.step(Input::Live(batch(9)));
    step(&mut machine, Input::Replayed(batch(7)), DROP_AND_APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::Gap));
}

#[test]
fn another_batch_under_our_last_number_is_a_restart() {
    let mut machine = after(exact(3, true), &[Input::Disconnected, Input::Connected]);
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::Replayed(restarted(3)), orders, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(restarted(0)), APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_history_that_ends_before_our_last_batch_is_a_restart() {
    let mut machine = after(exact(3, true), &[Input::Disconnected, Input::Connected]);
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::ReplayEnded, orders, Trust::CatchingUp);
}

#[test]
fn a_restart_within_a_replay_begins_it_anew() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    machine.step(Input::Replayed(batch(0)));
    machine.step(Input::Replayed(batch(1)));
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::Replayed(restarted(0)), orders, Trust::CatchingUp);
}

#[test]
fn a_first_replay_that_fails_is_a_late_start() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::ReplayFailed, NOTHING, uncertain(Doubt::LateStart));
    step(&mut machine, Input::Live(batch(6)), APPLY, uncertain(Doubt::LateStart));
}

#[test]
fn a_failed_replay_of_a_gap_leaves_it_to_the_held_batch() {
    let mut machine = exact(3, true);
    machine.step(Input::Live(batch(5)));
    step(&mut machine, Input::ReplayFailed, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(5)), DROP_AND_APPLY, uncertain(Doubt::Gap));
}

#[test]
fn a_failed_check_of_an_unbroken_stream_changes_nothing() {
    let mut machine = after(exact(3, true), &[Input::Idle]);
    step(&mut machine, Input::ReplayFailed, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(4)), APPLY, Trust::Exact);
}

#[test]
fn a_replay_that_fails_after_a_reconnection_drops_all() {
    let mut machine = after(exact(3, true), &[Input::Disconnected, Input::Connected]);
    step(&mut machine, Input::ReplayFailed, DROP, uncertain(Doubt::Gap));
}

// === exact and uncertain ===

#[test]
fn a_batch_that_was_applied_before_is_ignored() {
    let mut machine = exact(3, true);
    for seq in 0..=3 {
        step(&mut machine, Input::Live(batch(seq)), NOTHING, Trust::Exact);
    }
}

#[test]
fn a_gap_is_replayed_from_the_last_known_and_merges_with_what_is_held() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Live(batch(6)), HOLD.and(replay(3)), Trust::CatchingUp);
    step(&mut machine, Input::Live(batch(7)), HOLD, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(3)), NOTHING, Trust::CatchingUp);
    for seq in 4..=6 {
        step(&mut machine, Input::Replayed(batch(seq)), APPLY, Trust::CatchingUp);
    }
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(6)), NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(7)), APPLY, Trust::Exact);
}

#[test]
fn a_gap_that_a_replay_did_not_fill_is_given_up() {
    let mut machine = exact(3, true);
    let inputs = [Input::Live(batch(6)), Input::Replayed(batch(3)), Input::ReplayEnded];
    machine = after(machine, &inputs);
    step(&mut machine, Input::Live(batch(6)), DROP_AND_APPLY, uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(7)), APPLY, uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(9)), HOLD.and(replay(7)), Trust::CatchingUp);
}

#[test]
fn a_gap_without_a_history_drops_all() {
    let mut machine = exact(3, false);
    step(&mut machine, Input::Live(batch(5)), DROP_AND_APPLY, uncertain(Doubt::Gap));
}

#[test]
fn a_batch_of_another_process_drops_all_at_once() {
    let mut machine = exact(3, true);
    let orders = Orders { drop_blocks: true, ..HOLD.and(replay(0)) };
    step(&mut machine, Input::Live(restarted(1)), orders, Trust::CatchingUp);
}

#[test]
fn a_restart_without_a_history_is_exact_only_from_its_first_batch() {
    let mut machine = exact(3, false);
    step(&mut machine, Input::Live(restarted(0)), DROP_AND_APPLY, Trust::Exact);
    let mut machine = exact(3, false);
    step(&mut machine, Input::Live(restarted(2)), DROP_AND_APPLY, uncertain(Doubt::LateStart));
}

#[test]
fn a_clear_ends_every_doubt() {
    let mut machine = after(exact(3, false), &[Input::Live(batch(5))]);
    step(&mut machine, Input::Live(clearing(batch(6))), APPLY, Trust::Exact);
    step(&mut machine, Input::Live(clearing(batch(8))), DROP_AND_APPLY, Trust::Exact);
}

#[test]
fn a_batch_that_cannot_be_read_is_lost_for_good() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Live(unreadable(4)), DROP, uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(5)), APPLY, uncertain(Doubt::Gap));
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::Replayed(unreadable(0)), DROP, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::Gap));
}

#[test]
fn a_broken_stream_is_caught_up_with_if_the_process_is_the_same() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Disconnected, NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::Connected, replay(3), Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(3)), NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(4)), APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_broken_stream_without_a_history_drops_all() {
    let mut machine = after(exact(3, false), &[Input::Disconnected]);
    step(&mut machine, Input::Connected, DROP, uncertain(Doubt::Gap));
    // The number that is due may be another process's by chance: it proves nothing.
    step(&mut machine, Input::Live(batch(4)), APPLY, uncertain(Doubt::LateStart));
}

#[test]
fn a_doubt_outlives_a_broken_stream() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    let inputs = [Input::Replayed(batch(40)), Input::ReplayEnded, Input::Disconnected];
    machine = after(machine, &inputs);
    machine = after(machine, &[Input::Connected, Input::Replayed(batch(40))]);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::LateStart));
}

// === silence, checks ===

#[test]
fn silence_while_the_pod_works_is_asked_about() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Silent, replay(3), Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(3)), NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::Silent));
    // What comes without a break explains it.
    step(&mut machine, Input::Live(batch(4)), APPLY, Trust::Exact);
}

#[test]
fn a_replay_that_tells_more_explains_a_silence() {
    let mut machine = after(exact(3, true), &[Input::Silent]);
    machine = after(machine, &[Input::Replayed(batch(3)), Input::Replayed(batch(4))]);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn silence_without_a_history_is_uncertain() {
    let mut machine = exact(3, false);
    step(&mut machine, Input::Silent, NOTHING, uncertain(Doubt::Silent));
}

#[test]
fn an_idle_stream_is_checked() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Idle, replay(3), Trust::CatchingUp);
    machine.step(Input::Replayed(batch(3)));
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_stream_that_stays_broken_is_uncertain_until_it_is_whole() {
    let mut machine = after(exact(3, true), &[Input::Disconnected]);
    step(&mut machine, Input::Idle, NOTHING, uncertain(Doubt::Silent));
    step(&mut machine, Input::Connected, replay(3), Trust::CatchingUp);
    machine.step(Input::Replayed(batch(3)));
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_silence_hides_no_earlier_doubt() {
    let inputs = [Input::Connected, Input::Replayed(batch(40)), Input::ReplayEnded];
    let mut machine = after(after(Machine::new(true), &inputs), &[Input::Disconnected]);
    step(&mut machine, Input::Idle, NOTHING, uncertain(Doubt::LateStart));
    // Nor one that is found while it is asked about.
    let mut machine = after(Machine::new(true), &[Input::Connected, Input::Disconnected]);
    machine = after(machine, &[Input::Idle, Input::Connected, Input::Replayed(batch(40))]);
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::LateStart));
}

#[test]
fn a_failed_self_check_drops_all_and_asks_for_all() {
    let mut machine = exact(3, true);
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::SelfCheckFailed, orders, Trust::CatchingUp);
    for seq in 0..=3 {
        machine.step(Input::Replayed(batch(seq)));
    }
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_failed_self_check_stays_one_if_the_history_cannot_help() {
    let mut machine = after(exact(3, true), &[Input::SelfCheckFailed]);
    machine.step(Input::Replayed(batch(2)));
    step(&mut machine, Input::ReplayEnded, NOTHING, uncertain(Doubt::SelfCheck));
    let mut machine = exact(3, false);
    step(&mut machine, Input::SelfCheckFailed, DROP, uncertain(Doubt::SelfCheck));
}

#[test]
fn what_was_found_to_agree_is_exact() {
    let mut machine = after(Machine::new(false), &[Input::Connected, Input::Live(batch(5))]);
    step(&mut machine, Input::Reconciled, NOTHING, Trust::Exact);
}

#[test]
fn a_history_that_failed_is_asked_again_and_keeps_what_is_known_until_it_answers() {
    let mut machine = after(Machine::new(true), &[Input::Connected, Input::ReplayFailed]);
    machine.step(Input::Live(batch(6)));
    step(&mut machine, Input::Retry, replay(0), Trust::CatchingUp);
    step(&mut machine, Input::ReplayFailed, NOTHING, uncertain(Doubt::LateStart));
    step(&mut machine, Input::Live(batch(7)), APPLY, uncertain(Doubt::LateStart));
    step(&mut machine, Input::Retry, replay(0), Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(0)), DROP_AND_APPLY, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(1)), APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

// === impl Orders ===

impl Orders {
    /// These, and the other's replay.
    fn and(self, other: Self) -> Self {
        Self { replay_from: other.replay_from, ..self }
    }
}
