//! Why the last requests went where they went, and what came of it: for people who ask.
//!
//! Nothing that a client typed is kept but the names of its model and its request.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::feed::kv_events::Outcome as Prediction;
use crate::policy::{Candidate, PolicyName};
use crate::split::Split;

/// The last decisions: a ring whose entries are written over, so that keeping them allocates
/// nothing once each entry has grown to the fleet's size.
#[derive(Debug)]
pub struct Decisions {
    ring: Box<[Mutex<Explained>]>,
    next: AtomicU64,
}

/// One decision, and what came of it.
#[derive(Clone, Debug)]
pub struct Explained {
    number: u64,
    /// The request's id.
    pub request_id: String,
    /// Its model.
    pub model: Option<Arc<str>>,
    /// When it was decided.
    pub at: SystemTime,
    /// The policy.
    pub policy: PolicyName,
    /// Tokens of the prompt; about, unless it was tokenized.
    pub prompt_tokens: u32,
    /// How many pods could have taken it.
    pub candidates: usize,
    /// The pods, the chosen one included; the cheapest [`MAX_ROWS`] if there are more.
    pub rows: Vec<Row>,
    /// The chosen pod's place among the rows.
    pub chosen: usize,
    /// Whether another pod prefills, and why not; none where no pod only prefills.
    pub split: Option<Split>,
    /// What came of it.
    pub came: Came,
}

/// One pod in a decision.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The pod.
    pub addr: SocketAddr,
    /// What it was weighed by.
    pub candidate: Candidate,
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Came {
    /// The pod's status; none before its answer has begun.
    pub status: Option<u16>,
    /// From the decision to the first token, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// Of it, the prefill on another pod.
    pub prefill_ms: Option<f64>,
    /// Of it, from asking the pod that answers to its first token.
    pub transfer_ms: Option<f64>,
    /// The pod's own count of the prompt's tokens.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that the pod found in its cache.
    pub cached_tokens: Option<u32>,
    /// What that shows of the prediction, where the pod's own events had made it.
    pub prediction: Option<Prediction>,
    /// `in_flight`, `answered`, `refused` (the pod answered with an error), or why it gave no
    /// answer.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    #[default]
    InFlight,
    /// With a 2xx.
    Answered,
    /// With another status, which went to the client.
    Refused,
    /// With no answer to send on; the reason in a word.
    Failed(&'static str),
}

/// A decision as it is made.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) model: Option<&'a Arc<str>>,
    pub(crate) policy: PolicyName,
    pub(crate) prompt_tokens: u32,
    pub(crate) candidates: &'a [Candidate],
    pub(crate) chosen: usize,
    pub(crate) split: Option<Split>,
}

/// The way back to a decision, for what comes of it. Dropped, the attempt is over.
#[derive(Debug)]
pub(crate) struct Sequel {
    way: Later,
}

/// The way back to a decision, for what comes after the attempt's end.
#[derive(Clone, Debug)]
pub(crate) struct Later {
    decisions: Arc<Decisions>,
    number: u64,
}

/// Rows kept of one decision: with some 250 bytes each, and 256 decisions, 4 MiB at most.
pub const MAX_ROWS: usize = 64;

// === impl Decisions ===

impl Decisions {
    /// Room for so many decisions; 0: none is kept.
    #[must_use]
    pub fn new(kept: usize) -> Self {
        let entry = |_| Mutex::new(Explained::default());
        Self { ring: (0..kept).map(entry).collect(), next: AtomicU64::new(1) }
    }

    /// Keeps a decision; none if nothing is kept, or the request has no id to ask by.
    pub(crate) fn keep(
        self: &Arc<Self>,
        made: &Made<'_>,
        addr: impl Fn(&Candidate) -> SocketAddr,
    ) -> Option<Sequel> {
        if self.ring.is_empty() || made.request_id.is_empty() {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.entry(number).lock().write(number, made, addr);
        Some(Sequel { way: Later { decisions: Arc::clone(self), number } })
    }

    /// The attempts of one request, in order.
    #[must_use]
    pub fn of(&self, request_id: &str) -> Vec<Explained> {
        self.sorted(|entry| entry.request_id == request_id)
    }

    /// All that are kept, the latest first.
    #[must_use]
    pub fn latest(&self) -> Vec<Explained> {
        let mut all = self.sorted(|_| true);
        all.reverse();
        all
    }

    fn sorted(&self, wanted: impl Fn(&Explained) -> bool) -> Vec<Explained> {
        let entries = self.ring.iter().map(|entry| entry.lock());
        let wanted = entries.filter(|entry| entry.number > 0 && wanted(entry));
        let mut found: Vec<_> = wanted.map(|entry| entry.clone()).collect();
        found.sort_unstable_by_key(|entry| entry.number);
        found
    }

    fn entry(&self, number: u64) -> &Mutex<Explained> {
        let len = u64::try_from(self.ring.len()).unwrap_or(u64::MAX);
        let index = usize::try_from(number % len).unwrap_or_default();
        &self.ring[index]
    }
}

// === impl Explained ===

impl Default for Explained {
    fn default() -> Self {
        Self {
            number: 0,
            request_id: String::new(),
            model: None,
            at: SystemTime::UNIX_EPOCH,
            policy: PolicyName::default(),
            prompt_tokens: 0,
            candidates: 0,
            rows: Vec::new(),
            chosen: 0,
            split: None,
            came: Came::default(),
        }
    }
}

impl Explained {
    /// The chosen pod.
    #[must_use]
    pub fn pick(&self) -> Option<&Row> {
        self.rows.get(self.chosen)
    }

    fn write(&mut self, number: u64, made: &Made<'_>, addr: impl Fn(&Candidate) -> SocketAddr) {
        self.number = number;
        self.request_id.clear();
        self.request_id.push_str(made.request_id);
        self.model = made.model.cloned();
        self.at = SystemTime::now();
        (self.policy, self.prompt_tokens) = (made.policy, made.prompt_tokens);
        (self.split, self.came) = (made.split, Came::default());
        self.candidates = made.candidates.len();
        self.rows.clear();
        let row = |candidate: &Candidate| Row { addr: addr(candidate), candidate: *candidate };
        if made.candidates.len() <= MAX_ROWS {
            self.rows.extend(made.candidates.iter().map(row));
            self.chosen = made.chosen;
            return;
        }
        self.rows.push(row(&made.candidates[made.chosen]));
        self.chosen = 0;
        for (index, candidate) in made.candidates.iter().enumerate() {
            if index == made.chosen {
                continue;
            }
            if self.rows.len() < MAX_ROWS {
                self.rows.push(row(candidate));
                continue;
            }
            let cost = |row: &Row| row.candidate.cost_ms;
            let others = self.rows[1..].iter_mut();
            let dearest = others.max_by(|a, b| cost(a).total_cmp(&cost(b)));
            if let Some(dearest) = dearest.filter(|it| cost(it) > candidate.cost_ms) {
                *dearest = row(candidate);
            }
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed(reason) => reason,
        }
    }
}

// === impl Sequel ===

impl Sequel {
    /// Notes what came, unless the entry was written over meanwhile.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Came)) {
        self.way.note(note);
    }

    /// The way back for what comes after the attempt's end.
    pub(crate) fn later(&self) -> Later {
        self.way.clone()
    }
}

// === impl Later ===

impl Later {
    /// See [`Sequel::note`].
    pub(crate) fn note(&self, note: impl FnOnce(&mut Came)) {
        let mut entry = self.decisions.entry(self.number).lock();
        if entry.number == self.number {
            note(&mut entry.came);
        }
    }
}

impl Drop for Sequel {
    /// The attempt is over, whoever ended it.
    fn drop(&mut self) {
        self.note(|came| {
            if came.outcome == Outcome::InFlight {
                came.outcome = match came.status {
                    Some(200..300) => Outcome::Answered,
                    Some(_) => Outcome::Refused,
                    None => Outcome::Failed("client_gone"),
                };
            }
        });
    }
}
