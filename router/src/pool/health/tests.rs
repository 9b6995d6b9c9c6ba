use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> HealthSettings {
    HealthSettings::default()
}

fn ready_at(now: Instant) -> PodHealth {
    let mut pod = PodHealth::new();
    pod.probed(Probe::Good, now, &settings());
    assert_eq!(pod.health(), Health::Ready);
    pod
}

fn fail(pod: &mut PodHealth, times: usize, now: Instant) {
    for _ in 0..times {
        pod.saw(Outcome::Failed, now, true, &settings());
    }
}

#[test]
fn a_pod_gets_no_traffic_before_a_good_probe() {
    let now = Instant::now();
    let mut pod = PodHealth::new();
    for probe in [Probe::Dead, Probe::Doubtful, Probe::Doubtful, Probe::Doubtful] {
        pod.probed(probe, now, &settings());
        assert_eq!(pod.health(), Health::Unproven);
    }
    pod.probed(Probe::Good, now, &settings());
    assert_eq!(pod.health(), Health::Ready);
}

#[test]
fn three_failures_in_a_row_eject_and_an_answer_between_them_does_not() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    fail(&mut pod, 2, now);
    pod.saw(Outcome::Answered, now, true, &settings());
    fail(&mut pod, 2, now);
    assert_eq!(pod.health(), Health::Ready);
    fail(&mut pod, 1, now);
    assert_eq!(pod.health(), Health::Ejected);
    assert_eq!(pod.out(), Some(Out::Requests));
}

#[test]
fn a_busy_engine_is_not_sick() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    for _ in 0..100 {
        assert!(!pod.saw(Outcome::Busy, now, true, &settings()));
    }
    assert_eq!(pod.health(), Health::Ready);
    assert!(!pod.is_suspect());
}

#[test]
fn one_failed_request_and_one_failed_probe_are_enough() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    pod.probed(Probe::Doubtful, now, &settings());
    assert_eq!(pod.health(), Health::Ready, "a slow probe alone proves little");
    pod.saw(Outcome::Answered, now, true, &settings());
    assert!(pod.saw(Outcome::Failed, now, true, &settings()), "a failure asks for a probe");
    pod.probed(Probe::Doubtful, now, &settings());
    assert_eq!(pod.health(), Health::Ejected);
    assert_eq!(pod.out(), Some(Out::Mute));
    pod.probed(Probe::Dead, now, &settings());
    assert_eq!(pod.out(), Some(Out::Gone), "then it went");
    pod.probed(Probe::Doubtful, now, &settings());
    assert_eq!(pod.out(), Some(Out::Gone));
}

#[test]
fn a_pod_that_is_mute_for_long_is_gone() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    for _ in 0..3 {
        pod.probed(Probe::Doubtful, now, &settings());
    }
    pod.probed(Probe::Doubtful, now + SECOND * 29, &settings());
    assert_eq!(pod.out(), Some(Out::Mute));
    pod.probed(Probe::Doubtful, now + SECOND * 30, &settings());
    assert_eq!(pod.out(), Some(Out::Gone), "ejected_max: no busy spell is so long");
    pod.probed(Probe::Good, now + SECOND * 31, &settings());
    assert_eq!(pod.out(), None);
}

#[test]
fn a_failure_that_a_good_probe_has_refuted_does_not_condemn_later() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    fail(&mut pod, 1, now);
    pod.probed(Probe::Good, now, &settings());
    pod.probed(Probe::Doubtful, now, &settings());
    assert_eq!(pod.health(), Health::Ready);
    fail(&mut pod, 2, now);
    assert_eq!(pod.health(), Health::Ejected, "but it still counts among the three in a row");
    assert!(!pod.is_suspect(), "answers of others are not awaited while it is out");
}

#[test]
fn a_refused_probe_ejects_at_once_and_doubtful_ones_only_three_in_a_row() {
    let now = Instant::now();
    let mut dead = ready_at(now);
    dead.probed(Probe::Dead, now, &settings());
    assert_eq!(dead.health(), Health::Ejected);

    let mut slow = ready_at(now);
    for probe in [Probe::Doubtful, Probe::Doubtful, Probe::Good, Probe::Doubtful, Probe::Doubtful] {
        slow.probed(probe, now, &settings());
    }
    assert_eq!(slow.health(), Health::Ready);
    slow.probed(Probe::Doubtful, now, &settings());
    assert_eq!(slow.health(), Health::Ejected);
}

#[test]
fn a_good_probe_brings_a_pod_back_but_not_before_its_time() {
    let start = Instant::now();
    let mut pod = ready_at(start);
    let mut now = start;
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        fail(&mut pod, 3, now);
        let back = now + SECOND * seconds;
        pod.probed(Probe::Good, back - Duration::from_millis(1), &settings());
        assert_eq!(pod.health(), Health::Ejected, "held for {seconds} s");
        pod.probed(Probe::Good, back, &settings());
        assert_eq!(pod.health(), Health::Ready, "back after {seconds} s");
        now = back;
    }
    now += SECOND * 31;
    fail(&mut pod, 3, now);
    pod.probed(Probe::Good, now + SECOND, &settings());
    assert_eq!(pod.health(), Health::Ready, "31 s of health forgive the past");
}

#[test]
fn a_pod_that_must_not_be_ejected_stays_and_the_probe_decides() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    for _ in 0..10 {
        assert!(pod.saw(Outcome::Failed, now, false, &settings()));
    }
    assert_eq!(pod.health(), Health::Ready);
    pod.probed(Probe::Doubtful, now, &settings());
    assert_eq!(pod.health(), Health::Ejected);
}

#[test]
fn an_engine_that_stood_still_has_to_make_a_token_before_it_comes_back() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    pod.stands_still(now, &settings());
    assert_eq!((pod.health(), pod.out()), (Health::Ejected, Some(Out::Standstill)));
    pod.probed(Probe::Good, now + SECOND * 9, &settings());
    assert!(pod.owes_token(), "a paused engine says that it is well");
    pod.probed(Probe::Doubtful, now + SECOND * 9, &settings());
    assert!(pod.owes_token(), "it may have failed at that very token");
    pod.probed(Probe::Generated, now + SECOND - Duration::from_millis(1), &settings());
    assert_eq!(pod.health(), Health::Ejected, "not before its time");
    pod.probed(Probe::Generated, now + SECOND, &settings());
    assert_eq!((pod.health(), pod.out()), (Health::Ready, None));
    pod.stands_still(now + SECOND, &settings());
    pod.probed(Probe::Generated, now + SECOND * 2, &settings());
    assert_eq!(pod.health(), Health::Ejected, "twice as long the second time");
}

#[test]
fn a_process_that_died_standing_still_owes_no_token() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    pod.stands_still(now, &settings());
    pod.probed(Probe::Dead, now, &settings());
    pod.probed(Probe::Good, now + SECOND, &settings());
    assert_eq!(pod.health(), Health::Ready);
}

#[test]
fn stalled_answers_eject_like_failed_ones_and_silence_only_asks_for_a_look() {
    let now = Instant::now();
    let mut pod = ready_at(now);
    for _ in 0..100 {
        assert!(pod.saw(Outcome::Silent, now, true, &settings()), "a probe looks");
    }
    pod.probed(Probe::Doubtful, now, &settings());
    assert_eq!(pod.health(), Health::Ready, "a silence is no failure");
    fail(&mut pod, 2, now);
    pod.saw(Outcome::Stalled, now, true, &settings());
    assert!(pod.owes_token(), "the third in a row");
    assert!(!pod.saw(Outcome::Silent, now, true, &settings()), "it is looked at as it is");
}
