//! The arrows that leave exact and uncertain.

use super::*;

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
    machine.step(Input::Live(batch(6)));
    machine = after(machine, &[Input::Replayed(batch(3)), Input::ReplayEnded]);
    step(&mut machine, Input::Live(batch(6)), DROP_AND_APPLY, Trust::Uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(7)), APPLY, Trust::Uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(9)), HOLD.and(replay(7)), Trust::CatchingUp);
}

#[test]
fn a_gap_without_a_history_drops_all() {
    let mut machine = exact(3, false);
    step(&mut machine, Input::Live(batch(5)), DROP_AND_APPLY, Trust::Uncertain(Doubt::Gap));
}

#[test]
fn a_batch_of_another_process_drops_all_at_once() {
    let mut machine = exact(3, true);
    let orders = Orders { drop_blocks: true, ..HOLD.and(replay(0)) };
    step(&mut machine, Input::Live(restarted(1)), orders, Trust::Retelling);
}

#[test]
fn a_restart_without_a_history_is_exact_only_from_its_first_batch() {
    let mut machine = exact(3, false);
    step(&mut machine, Input::Live(restarted(0)), DROP_AND_APPLY, Trust::Exact);
    let mut machine = exact(3, false);
    step(
        &mut machine,
        Input::Live(restarted(2)),
        DROP_AND_APPLY,
        Trust::Uncertain(Doubt::LateStart),
    );
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
    step(&mut machine, Input::Live(unreadable(4)), DROP, Trust::Uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(5)), APPLY, Trust::Uncertain(Doubt::Gap));
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    step(&mut machine, Input::Replayed(unreadable(0)), DROP, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::Gap));
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
    step(&mut machine, Input::Connected, DROP, Trust::Uncertain(Doubt::Gap));
    step(&mut machine, Input::Live(batch(4)), APPLY, Trust::Uncertain(Doubt::LateStart));
}

#[test]
fn a_doubt_outlives_a_broken_stream() {
    let mut machine = after(Machine::new(true), &[Input::Connected]);
    machine = after(machine, &[Input::Replayed(batch(40)), Input::ReplayEnded]);
    let again = [Input::Disconnected, Input::Connected, Input::Replayed(batch(40))];
    machine = after(machine, &again);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::LateStart));
}

// === silence, checks ===

#[test]
fn silence_while_the_pod_works_is_asked_about() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Silent, replay(3), Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(3)), NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::Silent));
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
    step(&mut machine, Input::Silent, NOTHING, Trust::Uncertain(Doubt::Silent));
}

#[test]
fn a_check_that_failed_is_not_the_last_one() {
    let mut machine = after(exact(3, true), &[Input::Idle, Input::ReplayFailed]);
    step(&mut machine, Input::Idle, NOTHING, Trust::Exact);
    step(&mut machine, Input::Retry, NOTHING, Trust::Exact);
    step(&mut machine, Input::Idle, replay(3), Trust::CatchingUp);
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
    step(&mut machine, Input::Idle, NOTHING, Trust::Uncertain(Doubt::Silent));
    step(&mut machine, Input::Connected, replay(3), Trust::CatchingUp);
    machine.step(Input::Replayed(batch(3)));
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_silence_hides_no_earlier_doubt() {
    let inputs = [Input::Connected, Input::Replayed(batch(40)), Input::ReplayEnded];
    let mut machine = after(after(Machine::new(true), &inputs), &[Input::Disconnected]);
    step(&mut machine, Input::Idle, NOTHING, Trust::Uncertain(Doubt::LateStart));
    // Nor one that is found while it is asked about.
    let mut machine = after(Machine::new(true), &[Input::Connected, Input::Disconnected]);
    machine = after(machine, &[Input::Idle, Input::Connected, Input::Replayed(batch(40))]);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::LateStart));
}

#[test]
fn an_over_predicted_answer_asks_what_was_missed() {
    let mut machine = exact(3, true);
    step(&mut machine, Input::Overpredicted, replay(3), Trust::CatchingUp);
    step(&mut machine, Input::Overpredicted, NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(3)), NOTHING, Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(4)), APPLY, Trust::CatchingUp);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
    let mut machine = exact(3, false);
    step(&mut machine, Input::Overpredicted, NOTHING, Trust::Exact);
}

#[test]
fn an_over_predicted_answer_of_a_doubted_pod_leaves_the_doubt() {
    let inputs = [Input::Connected, Input::Replayed(batch(40)), Input::ReplayEnded];
    let mut machine = after(Machine::new(true), &inputs);
    step(&mut machine, Input::Overpredicted, replay(40), Trust::CatchingUp);
    machine.step(Input::Replayed(batch(40)));
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::LateStart));
}

#[test]
fn answers_do_not_begin_a_history_anew_that_is_being_told() {
    let mut machine = after(Machine::new(true), &[Input::Connected, Input::Replayed(batch(0))]);
    step(&mut machine, Input::SelfCheckFailed, NOTHING, Trust::Retelling);
    step(&mut machine, Input::Overpredicted, NOTHING, Trust::Retelling);
    step(&mut machine, Input::Replayed(batch(1)), APPLY, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_failed_self_check_drops_all_and_asks_for_all() {
    let mut machine = exact(3, true);
    let orders = Orders { drop_blocks: true, ..replay(0) };
    step(&mut machine, Input::SelfCheckFailed, orders, Trust::Retelling);
    for seq in 0..=3 {
        machine.step(Input::Replayed(batch(seq)));
    }
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}

#[test]
fn a_failed_self_check_stays_one_if_the_history_cannot_help() {
    let mut machine = after(exact(3, true), &[Input::SelfCheckFailed]);
    machine.step(Input::Replayed(batch(2)));
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Uncertain(Doubt::SelfCheck));
    let mut machine = exact(3, false);
    step(&mut machine, Input::SelfCheckFailed, DROP, Trust::Uncertain(Doubt::SelfCheck));
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
    step(&mut machine, Input::ReplayFailed, NOTHING, Trust::Uncertain(Doubt::LateStart));
    step(&mut machine, Input::Live(batch(7)), APPLY, Trust::Uncertain(Doubt::LateStart));
    step(&mut machine, Input::Retry, replay(0), Trust::CatchingUp);
    step(&mut machine, Input::Replayed(batch(0)), DROP_AND_APPLY, Trust::Retelling);
    step(&mut machine, Input::Replayed(batch(1)), APPLY, Trust::Retelling);
    step(&mut machine, Input::ReplayEnded, NOTHING, Trust::Exact);
}
