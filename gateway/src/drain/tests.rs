use std::time::Duration;

use router::units::HumanDuration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

const SETTINGS: config::Drain =
    config::Drain { linger: HumanDuration::from_secs(5), limit: HumanDuration::from_secs(600) };

/// A drain that runs, and the way to signal it. Time is the test's own.
struct Run {
    drain: Drain,
    signals: UnboundedSender<Signal>,
    outcome: JoinHandle<(Outcome, Duration)>,
}

impl Run {
    fn start() -> Self {
        let drain = Drain::default();
        let (signals, mut receiver) = unbounded_channel();
        let stream = stream::poll_fn(move |context| receiver.poll_recv(context));
        let outcome = tokio::spawn({
            let drain = drain.clone();
            async move {
                let start = Instant::now();
                let outcome = drain.run(stream, SETTINGS).await;
                (outcome, start.elapsed())
            }
        });
        Self { drain, signals, outcome }
    }

    fn signal(&self, signal: Signal) {
        self.signals.send(signal).expect("it listens");
    }

    /// Lets time pass.
    async fn after(&self, seconds: f64) {
        sleep(Duration::from_secs_f64(seconds)).await;
    }

    async fn outcome(self) -> (Outcome, Duration) {
        self.outcome.await.expect("it does not panic")
    }
}

#[tokio::test(start_paused = true)]
async fn sigterm_lingers_then_ends_with_the_last_request() {
    let run = Run::start();
    let early = run.drain.enter();
    assert_eq!(run.drain.phase(), Phase::Serving);
    run.signal(Signal::Terminate);
    run.after(4.9).await;
    assert_eq!(run.drain.phase(), Phase::Lingering);
    let late = run.drain.enter();
    drop(early);
    run.after(0.2).await;
    assert_eq!(run.drain.phase(), Phase::Closing);
    run.after(94.9).await;
    assert!(!run.outcome.is_finished(), "one request is running");
    drop(late);
    assert_eq!(run.outcome().await, (Outcome::Drained, Duration::from_secs(100)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_gateway_ends_right_after_the_linger() {
    let run = Run::start();
    run.signal(Signal::Terminate);
    assert_eq!(run.outcome().await, (Outcome::Drained, Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn sigint_does_not_linger() {
    let run = Run::start();
    run.signal(Signal::Interrupt);
    assert_eq!(run.outcome().await, (Outcome::Drained, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn the_limit_ends_the_wait() {
    let run = Run::start();
    let requests = (run.drain.enter(), run.drain.enter());
    run.signal(Signal::Terminate);
    assert_eq!(
        run.outcome().await,
        (Outcome::LimitReached(2), Duration::from_secs(605) + LAST_WORDS)
    );
    drop(requests);
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_cuts_what_runs_and_waits_only_for_its_last_words() {
    for (seconds, second) in [(1.0, Signal::Terminate), (100.0, Signal::Interrupt)] {
        let run = Run::start();
        let request = run.drain.enter();
        run.signal(Signal::Terminate);
        run.after(seconds).await;
        run.signal(second);
        run.drain.reached(Phase::Cutting).await;
        drop(request);
        assert_eq!(run.outcome().await, (Outcome::Forced(1), Duration::from_secs_f64(seconds)));
    }
}

#[tokio::test(start_paused = true)]
async fn http2_is_told_to_go_at_the_first_signal_and_what_comes_later_at_the_lingers_end() {
    let run = Run::start();
    let early = run.drain.goaway();
    run.signal(Signal::Terminate);
    run.after(1.0).await;
    let late = run.drain.goaway();
    assert_eq!((*early.borrow(), *late.borrow()), (true, false));
    run.after(4.1).await;
    assert!(*late.borrow());
    assert_eq!(run.outcome().await.0, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn requests_that_come_and_go_before_are_no_reason_to_end() {
    let run = Run::start();
    drop(run.drain.enter());
    run.after(1000.0).await;
    assert!(!run.outcome.is_finished() && !run.drain.is_draining());
    run.outcome.abort();
}
