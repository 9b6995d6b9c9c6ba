use super::*;
use kv_index::Slots;
use std::time::Duration;

fn book(bookings: &Arc<Bookings>, slot: Slot, cold: u32) -> Booking {
    let choose = |desk: &mut Desk| {
        desk.admit(slot);
        Some(((), slot, cold))
    };
    bookings.book(Instant::now(), choose).unwrap().1
}

fn answer(booking: &mut Booking, after_ms: u64) {
    booking.first_token(booking.booked_at + Duration::from_millis(after_ms));
}

#[test]
fn a_booking_is_given_back_on_drop_before_and_after_the_first_token() {
    let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
    let (mut a, b) = (book(&bookings, slot, 100), book(&bookings, slot, 50));
    assert_eq!(bookings.totals(), Totals { prefill_tokens: 150, requests: 2 });
    answer(&mut a, 5);
    answer(&mut a, 5);
    assert_eq!(bookings.totals(), Totals { prefill_tokens: 50, requests: 2 });
    drop((a, b));
    assert_eq!(bookings.totals(), Totals::default());
}

#[test]
fn who_waits_for_another_pods_prefill_is_counted_until_its_first_token_or_its_end() {
    let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
    let awaiting = || {
        let claim = Claim { slot, cold_tokens: 0, computed_tokens: None, new_tokens: 100 };
        let choose = |desk: &mut Desk| {
            desk.admit(slot);
            Some(((), claim, None))
        };
        bookings.book_legs((Instant::now(), true), choose).unwrap().1
    };
    let (mut a, b) = (awaiting(), awaiting());
    let own = book(&bookings, slot, 50);
    let seen = || (bookings.load(slot).awaiting, bookings.load(slot).requests);
    assert_eq!(seen(), (2, 3));
    answer(&mut a, 5);
    assert_eq!(seen(), (1, 3));
    drop((a, b));
    assert_eq!(seen(), (0, 1));
    drop(own);
    assert_eq!(seen(), (0, 0));
}

#[test]
fn a_place_is_given_back_once_and_what_its_pod_says_after_that_changes_nothing() {
    let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
    let (mut a, b) = (book(&bookings, slot, 100), book(&bookings, slot, 50));
    a.end();
    assert_eq!(bookings.totals(), Totals { prefill_tokens: 50, requests: 1 });
    answer(&mut a, 5);
    drop(a);
    assert_eq!(bookings.totals(), Totals { prefill_tokens: 50, requests: 1 });
    drop(b);
}

#[test]
fn a_late_booking_of_a_dead_pod_does_not_touch_its_successor() {
    let (bookings, mut slots) = (Arc::new(Bookings::default()), Slots::default());
    let old = slots.acquire();
    let late = book(&bookings, old, 10);
    slots.release(old);
    let new = slots.acquire();
    let current = book(&bookings, new, 7);
    drop(late);
    assert_eq!(bookings.totals(), Totals { prefill_tokens: 7, requests: 1 });
    drop(book(&bookings, old, 3));
    let sum = bookings.totals();
    assert_eq!(sum, Totals { prefill_tokens: 7, requests: 1 }, "a stale snapshot books nothing");
    drop(current);
    assert_eq!(bookings.totals(), Totals::default());
}

#[test]
fn rates_are_learned_from_long_prompts_only_and_count_the_queue() {
    let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
    answer(&mut book(&bookings, slot, 16), 1_000);
    assert!((bookings.load(slot).prefill_ms_per_token - 0.1).abs() < 1e-9);
    for _ in 0..100 {
        let _ahead = book(&bookings, slot, 1_000);
        answer(&mut book(&bookings, slot, 1_000), 4_000);
    }
    assert!((bookings.load(slot).prefill_ms_per_token - 2.0).abs() < 0.01);
}

#[test]
fn a_pod_that_was_never_measured_is_as_fast_as_the_others() {
    let (bookings, mut slots) = (Arc::new(Bookings::default()), Slots::default());
    let (a, b) = (slots.acquire(), slots.acquire());
    drop((book(&bookings, a, 16), book(&bookings, b, 16)));
    let rate = |slot| bookings.load(slot).prefill_ms_per_token;
    answer(&mut book(&bookings, a, 10_000), 200);
    assert!((rate(a) - 0.02).abs() < 1e-9, "the first count replaces the guess: {}", rate(a));
    assert!((rate(b) - 0.02).abs() < 1e-9, "{}", rate(b));
    answer(&mut book(&bookings, a, 200), 30);
    assert!(rate(a) < 0.03, "a short prompt's overhead says little: {}", rate(a));
    bookings.forget(a);
    assert!(rate(b) < 0.03, "what the fleet is like stays known: {}", rate(b));
}

#[test]
fn recent_work_is_what_the_pod_counted() {
    let (bookings, slot) = (Arc::new(Bookings::default()), Slots::default().acquire());
    let mut booking = book(&bookings, slot, 1_000);
    booking.began();
    booking.measured(2_500);
    booking.measured(2_400);
    drop(booking);
    let recent = bookings.load(slot).recent_tokens;
    assert!((recent - 2_400.0).abs() < 1e-6, "{recent}");
    book(&bookings, slot, 500).measured(700);
    let after = bookings.load(slot).recent_tokens;
    assert!((after - recent).abs() < 5.0, "undone with the attempt, but for what fades: {after}");
}

#[test]
fn a_newcomer_starts_at_the_mean() {
    let (bookings, mut slots) = (Arc::new(Bookings::default()), Slots::default());
    let (a, b, c) = (slots.acquire(), slots.acquire(), slots.acquire());
    assert!(bookings.load(a).recent_tokens + bookings.load(b).recent_tokens < 1e-9);
    drop((book(&bookings, a, 0), book(&bookings, b, 0)));
    for (slot, cold) in [(a, 1_000), (b, 3_000)] {
        book(&bookings, slot, cold).began();
        drop(book(&bookings, slot, 500));
    }
    let recent = bookings.load(c).recent_tokens;
    assert!((1_990.0..2_010.0).contains(&recent), "{recent}");
    bookings.forget(b);
    let recent = bookings.load(c).recent_tokens;
    assert!((990.0..1_010.0).contains(&recent), "a pod that left does not count: {recent}");
}

/// Of a plain answer the first token is the last: its prompt was computed long before, and queues nobody.
#[test]
fn a_prefill_that_nobody_tells_of_is_over_when_it_should_be() {
    let (bookings, slot) = (Arc::<Bookings>::default(), Slots::default().acquire());
    let began = Instant::now();
    let book = |now, is_told| {
        let choose = |_: &mut Desk| Some(((), Claim::of(slot, 1_000, 1_000), None));
        bookings.book_legs((now, is_told), choose).unwrap().1
    };
    let plain = book(began, false);
    let behind = book(began, false);
    let tokens = || bookings.load(slot).prefill_tokens;
    assert_eq!(tokens(), 2_000);
    // 100 ms each at the initial rate, one after the other.
    let stream = book(began + Duration::from_millis(150), true);
    assert_eq!(tokens(), 2_000, "the second of them is computed still");
    drop(book(began + Duration::from_millis(250), true));
    assert_eq!(tokens(), 1_000, "only the stream's, which will be told of");
    drop((plain, behind));
    assert_eq!(tokens(), 1_000, "what was over is not taken off again");
    drop(stream);
    assert_eq!(bookings.totals(), Totals::default());
    let cut = book(began + Duration::from_millis(300), false);
    drop(cut);
    assert_eq!(bookings.totals(), Totals::default(), "it ended before it should have");
    assert!(bookings.desk.lock().is_idle());
}
