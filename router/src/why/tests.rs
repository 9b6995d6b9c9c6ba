use kv_index::Slots;

use super::*;
use crate::bookings::Load;

fn candidates(costs: impl Iterator<Item = f64>) -> Vec<Candidate> {
    let mut slots = Slots::default();
    let candidate = |(position, cost_ms)| Candidate {
        cost_ms,
        ..Candidate::new(slots.acquire(), position, Load::default())
    };
    costs.enumerate().map(candidate).collect()
}

fn addr(candidate: &Candidate) -> SocketAddr {
    let port = u16::try_from(candidate.position).expect("few pods");
    ([10, 0, 0, 1], port).into()
}

fn made<'a>(request_id: &'a str, candidates: &'a [Candidate], chosen: usize) -> Made<'a> {
    let policy = PolicyName::Warm;
    Made { request_id, model: None, policy, prompt_tokens: 9, candidates, chosen, split: None }
}

#[test]
fn attempts_are_found_by_id_and_say_what_came_of_them() {
    let (decisions, pods) = (Arc::new(Decisions::new(4)), candidates([1.0, 2.0].into_iter()));
    let first = decisions.keep(&made("a", &pods, 0), addr).expect("it is kept");
    first.note(|came| came.outcome = Outcome::Failed("reset"));
    drop(first);
    let second = decisions.keep(&made("a", &pods, 1), addr).expect("it is kept");
    second.note(|came| (came.status, came.ttft_ms) = (Some(200), Some(12.0)));
    assert_eq!(decisions.of("a")[1].came.outcome, Outcome::InFlight);
    drop(second);
    let attempts = decisions.of("a");
    let outcomes: Vec<_> = attempts.iter().map(|it| it.came.outcome.name()).collect();
    assert_eq!(outcomes, ["reset", "answered"]);
    assert_eq!(attempts[1].pick().map(|row| row.addr.port()), Some(1));
    assert!(decisions.of("b").is_empty());
    assert!(decisions.keep(&made("", &pods, 0), addr).is_none(), "nobody can ask for it");
}

#[test]
fn only_the_last_are_kept_and_a_late_word_does_not_reach_a_successor() {
    let (decisions, pods) = (Arc::new(Decisions::new(2)), candidates([1.0].into_iter()));
    let old = decisions.keep(&made("old", &pods, 0), addr).expect("it is kept");
    for id in ["a", "b"] {
        drop(decisions.keep(&made(id, &pods, 0), addr));
    }
    old.note(|came| came.ttft_ms = Some(1.0));
    drop(old);
    let ids: Vec<_> = decisions.latest().into_iter().map(|it| it.request_id).collect();
    assert_eq!(ids, ["b", "a"]);
    assert!(decisions.latest().iter().all(|it| it.came.ttft_ms.is_none()));
    let none = Arc::new(Decisions::new(0));
    assert!(none.keep(&made("a", &pods, 0), addr).is_none() && none.latest().is_empty());
}

#[test]
fn a_large_fleet_is_shown_by_its_cheapest_pods_and_the_chosen_one() {
    let pods = candidates((0..200_u32).map(|n| f64::from(200 - n)));
    let decisions = Arc::new(Decisions::new(1));
    drop(decisions.keep(&made("a", &pods, 3), addr));
    let shown = decisions.of("a").remove(0);
    assert_eq!((shown.candidates, shown.rows.len()), (200, MAX_ROWS));
    assert_eq!(shown.pick().map(|row| row.addr.port()), Some(3));
    let cheapest = u16::try_from(200 - MAX_ROWS + 1).expect("few");
    assert!(shown.rows[1..].iter().all(|row| row.addr.port() >= cheapest), "{shown:?}");
}
