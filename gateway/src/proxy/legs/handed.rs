//! What a prefill pod keeps for a decode pod until it is read, and what becomes of it if it never is.

use std::sync::atomic::{AtomicBool, Ordering};

use router::openai::Member;
use router::pool::Pod;
use tokio::time::{Instant, timeout};

use super::super::lease::Lease;
use crate::proxy::Gateway;
use crate::proxy::upstream::{Answer, request_for};
use crate::telemetry::metrics::Splits;

/// Blocks that were handed over. Dropped before it is settled who frees them, what is left of their
/// lease counts as leaked.
#[derive(Debug)]
pub(in crate::proxy) struct Handed {
    members: Vec<Member>,
    lease: Lease,
    /// The decode leg went out: a pod may be reading them.
    sent: AtomicBool,
    is_open: bool,
    splits: Splits,
}

/// A client that has gone is not worth a longer wait.
const RELEASE_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);

/// A model that no pod serves: the request is turned down before it reaches the engine, and vLLM then
/// tells the prefill pod that its blocks are not wanted (`_with_kv_transfer_rejection_cleanup`).
const NOBODYS_MODEL: &str = "\u{0}released";

// === impl Handed ===

impl Handed {
    pub(super) fn new(members: Vec<Member>, lease: Lease, splits: &Splits) -> Self {
        let sent = AtomicBool::new(false);
        Self { members, lease, sent, is_open: true, splits: splits.clone() }
    }

    /// A decode pod tells the prefill pod when they are free.
    pub(super) fn settle(&mut self) {
        self.is_open = false;
    }

    /// Until when they may be asked for, and where it is noted that they were.
    pub(super) fn guard(&self) -> (Lease, &AtomicBool) {
        (self.lease, &self.sent)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if self.is_open {
            self.splits.leaked(self.lease.left(Instant::now()).as_secs_f64());
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// The client has gone, and nobody will read these blocks. A decode pod that has the request
    /// already aborts it, and tells the prefill pod.
    pub(in crate::proxy) async fn forsake(&self, handed: Option<Handed>, decode: &Pod) {
        let Some(mut handed) = handed else { return };
        if handed.sent.load(Ordering::Relaxed) {
            handed.settle();
        }
        self.give_back(Some(handed), decode).await;
    }

    /// Asks this decode pod to tell the prefill pod that these blocks are not wanted; it would
    /// otherwise keep them until the lease is over. Not where a pod may be reading them: it would read
    /// what comes after them.
    pub(in crate::proxy) async fn give_back(&self, handed: Option<Handed>, decode: &Pod) {
        let Some(mut handed) = handed.filter(|handed| handed.is_open) else { return };
        let is_sent = handed.sent.load(Ordering::Relaxed);
        if is_sent || !handed.lease.is_open(Instant::now()) {
            return;
        }
        let members = handed.members.iter().map(|(key, value)| format!(",\"{key}\":{value}"));
        let model = serde_json::Value::from(NOBODYS_MODEL);
        let rest: String = members.collect();
        let body = format!(r#"{{"model":{model},"prompt":"a","max_tokens":1{rest}}}"#).into();
        let Ok(head) = request_for("/v1/completions", &body) else { return };
        let call = self.call(decode, &head, &body);
        let answer = timeout(RELEASE_LIMIT, Answer::of(&call, RELEASE_LIMIT)).await;
        let is_released = matches!(&answer, Ok(Ok(answer)) if answer.head.status == 404);
        self.metrics.splits.released(is_released);
        handed.is_open = !is_released;
    }
}
