//! Sends requests when they are due and hands back what came of them.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::super::JobError;
use crate::client::Answer;

/// Where a stage ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// No request is sent later than this.
    pub duration: Duration,
    /// Nor more than so many.
    pub requests: u64,
    /// Most of them in flight; a request that is due waits for room, and its latency grows.
    pub in_flight: usize,
}

/// One request that ended.
#[derive(Debug)]
pub(super) struct Sent {
    /// When it should have been sent.
    pub due: Instant,
    /// What came.
    pub answer: Answer,
}

/// Runs one stage: `send` makes each request's future, `on_sent` sees each as it ends. Returns how
/// many were due in time and not sent, because there was no room until the stage was over.
///
/// The requests run in tasks that this future owns: dropping it ends them.
///
/// # Errors
/// A request's task panicked.
pub(super) async fn drive<F>(
    schedule: impl Iterator<Item = Option<Duration>>,
    limits: Limits,
    send: impl Fn(u64) -> F,
    mut on_sent: impl FnMut(Sent),
) -> Result<u64, JobError>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let start = Instant::now();
    let end = start + limits.duration;
    let mut running = JoinSet::new();
    let mut unsent = 0;
    for (index, offset) in (0..limits.requests).zip(schedule) {
        let due_by_clock = offset.map(|offset| start + offset);
        if due_by_clock.is_some_and(|due| due >= end) {
            break;
        }
        // One request gives way to the next, so the wait for room ends with the stage.
        while running.len() >= limits.in_flight && Instant::now() < end {
            collect(&mut running, end, &mut on_sent).await?;
        }
        while due_by_clock.is_some_and(|due| Instant::now() < due) {
            collect(&mut running, due_by_clock.unwrap_or(end), &mut on_sent).await?;
        }
        let now = Instant::now();
        if now >= end || running.len() >= limits.in_flight {
            match due_by_clock {
                // Counting on, without sending: these were due too.
                Some(_) => unsent += 1,
                None => break,
            }
            continue;
        }
        let due = due_by_clock.unwrap_or(now);
        let answer = send(index);
        running.spawn(async move { Sent { due, answer: answer.await } });
    }
    while let Some(sent) = running.join_next().await {
        on_sent(sent?);
    }
    Ok(unsent)
}

/// Waits for one request to end, at most until `until`.
async fn collect(
    running: &mut JoinSet<Sent>,
    until: Instant,
    on_sent: &mut impl FnMut(Sent),
) -> Result<(), JobError> {
    tokio::select! {
        biased;
        () = sleep_until(until) => {}
        Some(sent) = running.join_next() => on_sent(sent?),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
