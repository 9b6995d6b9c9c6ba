//! How long an answer that says nothing is waited for, and when its pod is looked at meanwhile.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kv_index::Slot;
use router::pool::Outcome;
use router::query::Query;
use router::silence::{Action, Ear, Sight, Why};
use tokio::time::{Instant, sleep_until};

use super::Gateway;
use super::legs::Request;
use crate::request::account::Account;
use crate::request::failure::Failure;

/// When an answer last said something. One timer waits beside a whole answer, and not a new one beside
/// every chunk of it: so it has to be read while it changes.
pub(super) struct Heard {
    started: Instant,
    after_ms: AtomicU64,
}

// === impl Heard ===

impl Heard {
    pub(super) fn now() -> Self {
        Self { started: Instant::now(), after_ms: AtomicU64::new(0) }
    }

    /// It says something, or nobody listened until now.
    pub(super) fn again(&self) {
        let after = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.after_ms.store(after, Ordering::Relaxed);
    }

    fn at(&self) -> Instant {
        self.started + Duration::from_millis(self.after_ms.load(Ordering::Relaxed))
    }
}

// === impl Gateway ===

impl Gateway {
    /// What is waited for at a pod that has not begun, where these are tried or asked right now.
    pub(super) fn ear(&self, account: &Account, query: &Query, tried: &[Slot]) -> Ear {
        let may_go = account.attempts < self.config.retry.attempts;
        if may_go && self.router.has_another(query, tried) {
            Ear::Beginning
        } else {
            Ear::LastBeginning
        }
    }

    /// An attempt, for as long as there is hope for it. It is kilobytes, and stays where it is.
    pub(super) async fn while_hopeful<T>(
        &self,
        (slot, ear): (Slot, Ear),
        attempt: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    ) -> Result<T, Failure> {
        let heard = Heard::now();
        tokio::select! {
            biased;
            done = attempt => done,
            failure = self.given_up(slot, &heard, ear) => Err(failure),
        }
    }

    /// Resolves when an answer of this pod is to be given up.
    pub(super) async fn given_up(&self, slot: Slot, heard: &Heard, ear: Ear) -> Failure {
        let (settings, pool) = (&self.config.survive.silence, self.router.pool());
        let mut probe_at = Instant::now();
        loop {
            let now = Instant::now();
            let sight = {
                let snapshot = pool.snapshot();
                let endpoint = snapshot.endpoints.iter().find(|endpoint| endpoint.slot == slot);
                Sight::of(endpoint.map(|endpoint| &**endpoint))
            };
            let until = match settings.judge(ear, heard.at(), &sight, now) {
                Action::GiveUp(why) => return failure(why),
                Action::Wait(until) => until,
                Action::Doubt(until) => {
                    if now >= probe_at {
                        pool.report(slot, Outcome::Silent);
                        probe_at = now + settings.doubt_after.get();
                    }
                    until
                }
            };
            sleep_until(until).await;
            if settings.overslept(until, Instant::now()) {
                heard.again();
            }
        }
    }

    /// Whether a stream's pod may be left in the middle.
    pub(super) fn may_move(
        &self,
        account: &Account,
        stream: Option<&router::continuation::Stream>,
        request: &Request<'_>,
    ) -> bool {
        let survive = &self.config.survive;
        let model = || self.router.model(request.query);
        survive.migrate
            && account.moves < survive.moves
            && stream.is_some_and(|stream| stream.can_go_on(&request.body, model()))
    }
}

fn failure(why: Why) -> Failure {
    match why {
        Why::Out => Failure::Out,
        Why::Stalled => Failure::Stalled,
        Why::Leaving => Failure::Leaving,
    }
}
