//! The lease of a prefill pod's blocks, and the guard that no decode leg is sent when it is nearly over.
//!
//! vLLM's decode pod reads what it is told to read: after the lease (30 s) another prompt's KV may lie
//! there, and the answer is wrong with status 200 and no other sign. So the age of an answer counts
//! from an instant at which it surely had not come: the last time that somebody looked for it in vain.
//! A process that was stopped, or a thread that was starved, between the pod's answer and our reading
//! it finds the answer as old as it can be, not new.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long blocks are kept from some instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    since: Instant,
    length: Duration,
}

/// A lease is looked after so many times: each look is a timer and a poll.
const LOOKS: u32 = 60;

/// A look that is late by more says nothing of the one before.
const IN_TIME: u32 = 3;

// === impl Lease ===

impl Lease {
    /// A lease that began at this instant or later.
    pub(super) fn new(since: Instant, length: Duration) -> Self {
        Self { since, length }
    }

    /// Whether a decode leg that is sent now finds the blocks: within two thirds of the lease. The
    /// decode pod holds them with heartbeats once it has the request; the last third is for the way
    /// there.
    pub(super) fn is_open(self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.length * 2 / 3
    }

    /// What is left of it.
    pub(super) fn left(self, now: Instant) -> Duration {
        self.length.saturating_sub(now.saturating_duration_since(self.since))
    }

    /// How often an answer that begins such a lease is looked for.
    pub(super) fn look_every(length: Duration) -> Duration {
        (length / LOOKS).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }
}

/// Awaits, looking this often. Returns also the last instant at which it surely was not there yet.
///
/// That a look was in vain is believed only when the next one, in time, was too: a process that is
/// woken from SIGSTOP fires its timers before it hears of its sockets (`epoll_wait` is interrupted),
/// so the first look finds nothing though the answer has been there for long.
pub(super) async fn looked_for<T>(work: impl Future<Output = T>, every: Duration) -> (T, Instant) {
    let (mut work, mut looks) = (pin!(work), interval(every));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let (mut absent_at, mut looked_at) = (begun, begun);
    poll_fn(|context| {
        let now = Instant::now();
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready((done, absent_at));
        }
        while looks.poll_tick(context).is_ready() {
            if now.saturating_duration_since(looked_at) <= every * IN_TIME {
                absent_at = looked_at;
            }
            looked_at = now;
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;
    use tokio::time::advance;

    const LENGTH: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_task_that_was_frozen_finds_the_lease_over() {
        // Whether the socket's readiness is known when the process wakes, or only at the next look.
        for late in [false, true] {
            let (answer, arrives) = oneshot::channel();
            let mut wait = Box::pin(looked_for(arrives, Lease::look_every(LENGTH)));
            for _ in 0..4 {
                assert!(wait.as_mut().now_or_never().is_none(), "nothing is there yet");
                advance(Lease::look_every(LENGTH)).await;
            }
            // Nobody polls for 25 seconds, though the pod has answered.
            advance(Duration::from_secs(25)).await;
            if late {
                assert!(wait.as_mut().now_or_never().is_none(), "only the timer has fired");
            }
            answer.send("blocks").unwrap();
            let (got, absent_at) = wait.await;
            assert_eq!(got, Ok("blocks"));
            assert!(!Lease::new(absent_at, LENGTH).is_open(Instant::now()), "{late}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_prefill_does_not_use_up_the_lease() {
        let (answer, arrives) = oneshot::channel();
        let slow = async {
            for _ in 0..300 {
                advance(Duration::from_millis(500)).await;
                tokio::task::yield_now().await;
            }
            answer.send(()).unwrap();
        };
        let wait = looked_for(arrives, Lease::look_every(LENGTH));
        let ((), (_, absent_at)) = tokio::join!(slow, wait);
        let lease = Lease::new(absent_at, LENGTH);
        assert!(lease.is_open(Instant::now()), "it began a moment ago: {lease:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_third_is_for_the_way() {
        let lease = Lease::new(Instant::now(), LENGTH);
        advance(Duration::from_secs(19)).await;
        assert!(lease.is_open(Instant::now()));
        advance(Duration::from_secs(1)).await;
        assert!(!lease.is_open(Instant::now()));
        assert_eq!(lease.left(Instant::now()), Duration::from_secs(10));
    }
}
