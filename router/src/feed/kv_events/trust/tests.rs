//! One test per arrow of the table: those of the beginning and of catching up here.

mod model;
mod steady;

use super::*;

/// A process's batches are a second apart; another's are later.
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
    step(&mut machine, Input::Connected, replay(0), Trust::Retelling);
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
    step(&mut machine, Input::Live(batch(5)), APPLY, Trust::Uncertain(Doubt::LateStart));
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
    step(&mut machine, Input::Live(batch(2)), HOLD, Trust::Retelling);
    for seq in 0..3 {
        step(&mut machine, Input::Replayed(batch(seq)), APPLY, Trust::Retelling);
    }
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(2)), NOTHING, Trust::Exact);
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
    step(&mut machine, Input::Replayed(batch(40)), APPLY, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::LateStart));
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
    step(&mut machine, Input::Replayed(batch(7)), DROP_AND_APPLY, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::Gap));
}

#[test]
fn a_history_that_no_longer_has_our_last_batch_proves_nothing() {
    let mut machine = exact(3, true);
    machine.step(Input::Live(batch(9)));
    step(&mut machine, Input::Replayed(batch(7)), DROP_AND_APPLY, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::Gap));
}

#[test]
fn another_batch_under_our_last_number_is_a_restart() {
    let mut machine = after(exact(3, true), &[Input::Disconnected, Input::Connected]);
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::Replayed(restarted(3)), orders, Trust::Retelling);
    step(&mut machine, Input::Replayed(restarted(0)), APPLY, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_history_that_ends_before_our_last_batch_is_a_restart() {
    let mut machine = after(exact(3, true), &[Input::Disconnected, Input::Connected]);
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::ReplayEnded, orders, Trust::Retelling);
}

#[test]
fn a_restart_within_a_replay_begins_it_anew() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    machine.step(Input::Replayed(batch(0)));
    machine.step(Input::Replayed(batch(1)));
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::Replayed(restarted(0)), orders, Trust::Retelling);
}

#[test]
fn a_first_replay_that_fails_is_a_late_start() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::ReplayFailed, NOTHING, Trust::Uncertain(Doubt::LateStart));
    step(&mut machine, Input::Live(batch(6)), APPLY, Trust::Uncertain(Doubt::LateStart));
}

#[test]
fn a_failed_replay_of_a_gap_leaves_it_to_the_held_batch() {
    let mut machine = exact(3, true);
    machine.step(Input::Live(batch(5)));
    step(&mut machine, Input::ReplayFailed, NOTHING, Trust::Exact);
    step(&mut machine, Input::Live(batch(5)), DROP_AND_APPLY, Trust::Uncertain(Doubt::Gap));
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
    step(&mut machine, Input::ReplayFailed, DROP, Trust::Uncertain(Doubt::Gap));
}

// === impl Orders ===

impl Orders {
    /// These, and the other's replay.
    fn and(self, other: Self) -> Self {
        Self { replay_from: other.replay_from, ..self }
    }
}
