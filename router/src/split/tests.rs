use super::*;
use crate::bookings::Load;
use crate::policy::warm;
use kv_index::Slots;

const BLOCK: u32 = 16;

/// An idle pod that holds `matched` of a prompt.
fn pod(prompt: u32, matched: u32) -> Candidate {
    let uncached = prompt - matched;
    let load = Load::default();
    let ms = load.prefill_ms_per_token * f64::from(uncached);
    Candidate {
        matched_tokens: matched,
        uncached_tokens: uncached,
        cold_tokens: uncached / BLOCK * BLOCK,
        terms: warm::Terms { uncached_ms: ms, ..warm::Terms::default() },
        ..Candidate::new(Slots::default().acquire(), 0, load)
    }
}

fn verdict(decode: &[Candidate], role: Role, prefill: &[Candidate]) -> Verdict {
    weigh(&SplitSettings::default(), nowhere(), (decode, |_| role), (0, true), prefill)
}

/// Nobody says where the pods stand.
fn nowhere() -> (Rates, fn(&Candidate) -> Option<&'static str>) {
    (Rates::default(), |_| None)
}

fn pair(verdict: Verdict) -> (usize, usize) {
    let Verdict::Split(pair) = verdict else { panic!("not split: {verdict:?}") };
    (pair.decode, pair.prefill)
}

#[test]
fn a_long_cold_prompt_is_prefilled_elsewhere_and_a_warm_one_is_not() {
    let cold = [pod(1_500, 0)];
    assert_eq!(pair(verdict(&cold, Role::Decode, &cold)), (0, 0));
    let warm = [pod(1_500, 1_488)];
    assert_eq!(verdict(&warm, Role::Decode, &cold), Verdict::Short);
    let short = [pod(40, 0)];
    assert_eq!(verdict(&short, Role::Decode, &short), Verdict::Short);
}

#[test]
fn an_idle_pod_of_both_roles_computes_its_own_prompts_until_others_decode_there() {
    let mut decode = [pod(1_500, 0)];
    assert!(matches!(verdict(&decode, Role::Both, &[pod(1_500, 0)]), Verdict::NoGain(_)));
    decode[0].load.requests = 1;
    assert_eq!(pair(verdict(&decode, Role::Both, &[pod(1_500, 0)])), (0, 0));
    decode[0].load.awaiting = 1;
    assert!(matches!(verdict(&decode, Role::Both, &[pod(1_500, 0)]), Verdict::NoGain(_)));
}

#[test]
fn a_queue_on_the_prefill_pods_brings_the_prompt_home() {
    let (decode, mut prefill) = ([pod(1_500, 0)], [pod(1_500, 0), pod(1_500, 0)]);
    prefill[0].load.prefill_tokens = 20_000;
    assert_eq!(pair(verdict(&decode, Role::Decode, &prefill)), (0, 1), "the idle one");
    prefill[1].load.prefill_tokens = 20_000;
    assert!(matches!(verdict(&decode, Role::Decode, &prefill), Verdict::NoGain(_)));
}

/// 900 ms of queue are less than the 1,500 that four answers lose to this prefill, but those who come
/// meanwhile would wait for it too.
#[test]
fn a_line_at_the_prefill_pod_counts_for_those_who_will_stand_in_it_too() {
    let (mut decode, mut prefill) = ([pod(4_000, 0)], [pod(4_000, 0)]);
    decode[0].load.requests = 4;
    prefill[0].load.prefill_tokens = 9_000;
    prefill[0].load.requests = 1;
    assert_eq!(pair(verdict(&decode, Role::Decode, &prefill)), (0, 0));
    prefill[0].load.requests = 3;
    let Verdict::NoGain(pair) = verdict(&decode, Role::Decode, &prefill) else { panic!("whole") };
    assert!((pair.terms.behind_ms - 1_200.0).abs() < 1e-9, "{:?}", pair.terms);
}

#[test]
fn a_prefix_counts_on_either_pod() {
    let (cold, warm) = (pod(4_000, 0), pod(4_000, 3_200));
    assert_eq!(pair(verdict(&[cold], Role::Decode, &[cold, warm])), (0, 1), "not computed twice");
    assert_eq!(pair(verdict(&[cold, warm], Role::Decode, &[cold])), (1, 0), "not moved twice");
}

#[test]
fn a_queue_on_the_decode_pod_passes_while_the_prompt_is_prefilled() {
    let (mut decode, prefill) = ([pod(1_500, 0)], [pod(1_500, 0)]);
    decode[0].load.prefill_tokens = 1_000;
    let Verdict::Split(pair) = verdict(&decode, Role::Decode, &prefill) else { panic!("split") };
    let SplitTerms { prefill_ms, transfer_ms, pair_ms, .. } = pair.terms;
    assert!((pair_ms - prefill_ms - transfer_ms).abs() < 1e-9, "{:?}", pair.terms);
}

#[test]
fn between_equals_the_pair_of_one_place_wins_and_a_long_way_may_not_pay() {
    let (mut slots, prompt) = (Slots::default(), 8_000);
    let mut at = || Candidate { slot: slots.acquire(), ..pod(prompt, 0) };
    let (decode, prefill) = ([at()], [at(), at()]);
    let home = [decode[0].slot, prefill[1].slot];
    let place = |pod: &Candidate| Some(if home.contains(&pod.slot) { "a" } else { "b" });
    let rates = Rates { near: Rate::default(), far: Rate::FAR };
    let settings = SplitSettings::default();
    let weigh = |rates, prefill| {
        weigh(&settings, (rates, place), (&decode, |_| Role::Decode), (0, true), prefill)
    };
    assert_eq!(pair(weigh(rates, &prefill)), (0, 1), "the nearer one");
    assert_eq!(pair(weigh(rates, &prefill[..1])), (0, 0), "better than a prefill here");
    let slow = Rates { far: Rate { fixed_ms: 25.0, ms_per_token: 0.2 }, ..rates };
    assert!(matches!(weigh(slow, &prefill[..1]), Verdict::NoGain(_)), "moved slower than computed");
}

#[test]
fn the_floor_follows_what_a_transfer_takes_unless_it_is_set() {
    let rate = Rate { fixed_ms: 200.0, ms_per_token: 0.0 };
    let mut settings = SplitSettings::default();
    let floor = |settings: &SplitSettings| settings.floor_tokens(rate, &pod(1, 0));
    assert!((floor(&settings) - 4_000.0).abs() < 1e-6, "{}", floor(&settings));
    settings.min_uncached_tokens = Some(256);
    assert!((floor(&settings) - 256.0).abs() < 1e-9);
}

#[test]
fn where_the_policy_has_no_costs_its_choice_answers() {
    let decode = [pod(4_000, 0), pod(4_000, 3_200)];
    let settings = SplitSettings::default();
    let verdict = weigh(&settings, nowhere(), (&decode, |_| Role::Decode), (0, false), &decode);
    assert_eq!(pair(verdict).0, 0);
}
