use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::sleep;

use super::*;
use crate::workload::Arrivals;

const SECOND: Duration = Duration::from_secs(1);

/// A request that takes `service` and nothing else.
async fn serve(service: Duration) -> Answer {
    let mut answer = Answer::begin();
    sleep(service).await;
    answer.timing.total = answer.timing.sent_at.elapsed();
    answer
}

fn limits(seconds: u64, in_flight: usize) -> Limits {
    Limits { duration: Duration::from_secs(seconds), requests: u64::MAX, in_flight }
}

#[tokio::test(start_paused = true)]
async fn an_open_loop_keeps_its_pace_while_answers_are_slow() {
    let mut due = Vec::new();
    let start = Instant::now();
    let schedule = Arrivals::Constant { rate: 2.0 }.offsets().map(Some);
    let send = |_index| serve(10 * SECOND);
    let unsent = drive(schedule, limits(3, 100), send, |sent| {
        assert_eq!(sent.answer.timing.sent_at, sent.due, "there was room at once");
        due.push((sent.due - start).as_millis());
    });
    assert_eq!(unsent.await.expect("no panic"), 0);
    assert_eq!(due, [0, 500, 1000, 1500, 2000, 2500]);
}

/// The point of an open loop: one stall of the server shows in every request that was due in it.
#[tokio::test(start_paused = true)]
async fn a_request_kept_waiting_is_measured_from_when_it_was_due() {
    let schedule = Arrivals::Constant { rate: 1.0 }.offsets().map(Some);
    let send = |index| serve(if index == 0 { 4 * SECOND } else { SECOND / 10 });
    let mut late = Vec::new();
    let unsent = drive(schedule, limits(6, 1), send, |sent| {
        late.push((sent.answer.timing.sent_at - sent.due).as_millis());
    });
    assert_eq!(unsent.await.expect("no panic"), 0);
    assert_eq!(late, [0, 3000, 2100, 1200, 300, 0]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_found_no_room_until_the_end_are_counted_not_sent() {
    let schedule = Arrivals::Constant { rate: 1.0 }.offsets().map(Some);
    let mut sent = 0;
    let unsent = drive(schedule, limits(5, 1), |_index| serve(60 * SECOND), |_| sent += 1);
    assert_eq!(unsent.await.expect("no panic"), 4);
    assert_eq!(sent, 1);
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_holds_its_width_and_ends_on_time() {
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut ended = 0;
    let send = |_index| {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let answer = serve(SECOND).await;
            running.fetch_sub(1, Ordering::Relaxed);
            answer
        }
    };
    let start = Instant::now();
    let unsent = drive(std::iter::repeat(None), limits(3, 4), send, |_| ended += 1).await;
    assert_eq!((unsent.expect("no panic"), ended), (0, 12));
    assert_eq!(most.load(Ordering::Relaxed), 4);
    assert_eq!(start.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_requests_is_a_limit_too() {
    let mut ended = 0;
    let limits = Limits { requests: 7, ..limits(1000, 2) };
    let driven = drive(std::iter::repeat(None), limits, |_index| serve(SECOND), |_| ended += 1);
    assert_eq!((driven.await.expect("no panic"), ended), (0, 7));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_drive_ends_its_requests() {
    struct OnDrop(Arc<AtomicUsize>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let send = |_index| {
        let guard = OnDrop(Arc::clone(&dropped));
        async move {
            let answer = serve(1000 * SECOND).await;
            drop(guard);
            answer
        }
    };
    let driven = drive(std::iter::repeat(None), limits(3600, 3), send, |_| ());
    assert!(tokio::time::timeout(SECOND, driven).await.is_err(), "the drive was still going");
    tokio::task::yield_now().await;
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}
