use super::*;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What is to be done about an answer that was silent for so long: `wait`, `doubt`, or why it is given up.
fn after(silent: f64, ear: Ear, sight: impl FnOnce(Instant) -> Sight) -> &'static str {
    let heard = Instant::now();
    let now = heard + seconds(silent);
    match SilenceSettings::default().judge(ear, heard, &sight(heard), now) {
        Action::Wait(until) => {
            assert!(until > now, "it would be looked at again at once");
            "wait"
        }
        Action::Doubt(until) => {
            assert!(until > now, "it would be looked at again at once");
            "doubt"
        }
        Action::GiveUp(Why::Out) => "out",
        Action::GiveUp(Why::Stalled) => "stalled",
        Action::GiveUp(Why::Leaving) => "leaving",
    }
}

fn well(_heard: Instant) -> Sight {
    Sight::default()
}

fn gone(_heard: Instant) -> Sight {
    Sight { is_gone: true, ..Sight::default() }
}

fn mute(_heard: Instant) -> Sight {
    Sight { is_mute: true, ..Sight::default() }
}

/// Idle so long before the answer was last heard (less than zero: after).
fn idle(before: f64) -> impl FnOnce(Instant) -> Sight {
    move |heard| {
        let since = if before < 0.0 { heard + seconds(-before) } else { heard - seconds(before) };
        Sight { idle_since: Some(since), ..Sight::default() }
    }
}

fn paced(pace: f64) -> impl FnOnce(Instant) -> Sight {
    move |_| Sight { pace: Some(seconds(pace)), ..Sight::default() }
}

#[test]
fn a_pod_that_is_gone_is_left_when_its_answer_is_silent() {
    use Ear::{Beginning, BoundStream, LastBeginning, Stream};
    for ear in [Beginning, LastBeginning, Stream] {
        assert_eq!(after(0.9, ear, gone), "wait", "{ear:?}: it drains, and goes on");
        assert_eq!(after(1.0, ear, gone), "out", "{ear:?}");
        assert_eq!(after(1.0, ear, well), "doubt", "{ear:?}");
    }
    assert_eq!(after(9.0, BoundStream, gone), "doubt", "it would be lost: it gets its time");
    assert_eq!(after(10.0, BoundStream, gone), "out");
}

#[test]
fn a_pod_that_does_not_answer_probes_may_be_busy() {
    for ear in [Ear::Beginning, Ear::Handed, Ear::Stream] {
        assert_eq!(after(9.9, ear, mute), "doubt", "{ear:?}");
        assert_eq!(after(10.0, ear, mute), "out", "{ear:?}");
    }
    for ear in [Ear::LastBeginning, Ear::BoundStream] {
        assert_eq!(after(600.0, ear, mute), "doubt", "{ear:?}: there is nobody else");
    }
}

#[test]
fn a_stream_stalls_by_its_pods_own_pace() {
    assert_eq!(after(9.0, Ear::Stream, well), "doubt");
    assert_eq!(after(10.0, Ear::Stream, well), "stalled", "the floor, where no pace is known");
    assert_eq!(after(10.0, Ear::Stream, paced(0.02)), "stalled", "the floor, of a fast pod");
    assert_eq!(after(24.0, Ear::Stream, paced(0.5)), "doubt", "a slow pod has more time");
    assert_eq!(after(25.0, Ear::Stream, paced(0.5)), "stalled");
    assert_eq!(after(600.0, Ear::BoundStream, paced(0.02)), "doubt", "it can go on nowhere else");
}

#[test]
fn an_answer_that_has_not_begun_stalls_when_the_engine_has_nothing_to_do() {
    assert_eq!(after(600.0, Ear::Beginning, well), "doubt", "a queue has no pace");
    assert_eq!(after(9.0, Ear::Beginning, idle(100.0)), "doubt", "it was not asked yet");
    assert_eq!(after(10.0, Ear::Beginning, idle(100.0)), "stalled");
    assert_eq!(after(14.0, Ear::Beginning, idle(-5.0)), "doubt", "it had something to do");
    assert_eq!(after(15.0, Ear::Beginning, idle(-5.0)), "stalled");
    assert_eq!(after(600.0, Ear::LastBeginning, idle(100.0)), "doubt", "there is nobody else");
    assert_eq!(after(600.0, Ear::Handed, idle(100.0)), "doubt", "it has done its part");
}

#[test]
fn a_pod_that_terminates_is_left_before_its_grace_is_over_whatever_it_says() {
    let leaves = |grace: f64| {
        move |heard| Sight { leaves: Some((heard + seconds(grace), heard)), ..Sight::default() }
    };
    assert_eq!(after(0.5, Ear::Stream, leaves(30.0)), "wait");
    assert_eq!(after(24.9, Ear::Beginning, leaves(30.0)), "doubt");
    for ear in [Ear::Beginning, Ear::LastBeginning, Ear::Stream] {
        assert_eq!(after(25.0, ear, leaves(30.0)), "leaving", "5 s before");
        assert_eq!(after(0.9, ear, leaves(2.0)), "wait");
        assert_eq!(after(1.0, ear, leaves(2.0)), "leaving", "or half of it");
    }
    assert_eq!(after(29.0, Ear::BoundStream, leaves(30.0)), "doubt", "it ends there or never");
}

#[test]
fn who_looks_much_later_than_meant_has_stood_still_itself() {
    let (settings, meant) = (SilenceSettings::default(), Instant::now());
    for (late, overslept) in [(0.0, false), (0.9, false), (1.0, true), (60.0, true)] {
        assert_eq!(settings.overslept(meant, meant + seconds(late)), overslept, "{late} s late");
    }
    assert!(!settings.overslept(meant + seconds(5.0), meant), "it was woken early");
}
