//! What the router knows at one moment, for those who only look: metrics and the admin pages.

use std::fmt;
use std::sync::Arc;

use router::bookings::{Load, Totals};
use router::pool::{Failures, Snapshot};
use router::tokenize::MemoReport;
use router::{Router, TokenizerReport};

/// What the router knows at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The pods.
    pub snapshot: Arc<Snapshot>,
    /// What is booked on each of them, in the same order.
    pub loads: Vec<Load>,
    /// Blocks that each of them is believed to hold, in the same order.
    pub blocks: Vec<usize>,
    /// What went wrong in hearing from pods.
    pub failures: Failures,
    /// What is booked on all pods, those that have gone included.
    pub booked: Totals,
    /// Blocks that were sent and are remembered.
    pub approximate_blocks: usize,
    /// Bytes of that memory.
    pub approximate_bytes: usize,
    /// Blocks that pods told of, counted once for each that holds it.
    pub exact_blocks: usize,
    /// Bytes of what they told.
    pub exact_bytes: usize,
    /// Which tokenizers are in force.
    pub tokenizers: Vec<TokenizerReport>,
    /// What is remembered of earlier prompts' tokens.
    pub memo: MemoReport,
}

/// Takes readings.
#[derive(Clone)]
pub struct Readings(Arc<dyn Fn() -> Reading + Send + Sync>);

// === impl Readings ===

impl Readings {
    /// Readings of this router.
    #[must_use]
    pub fn of(router: Arc<Router>) -> Self {
        Self::from_fn(move || {
            let snapshot = Arc::clone(&router.pool().snapshot());
            let (bookings, known) = (router.bookings(), router.knowledge());
            Reading {
                loads: snapshot.endpoints.iter().map(|it| bookings.load(it.slot)).collect(),
                blocks: snapshot
                    .endpoints
                    .iter()
                    .map(|it| known.approximate.held(it.slot))
                    .collect(),
                snapshot,
                failures: router.pool().failures(),
                booked: bookings.totals(),
                approximate_blocks: known.approximate.blocks(),
                approximate_bytes: known.approximate.bytes(),
                exact_blocks: known.exact.holder_blocks(),
                exact_bytes: known.exact.bytes(),
                tokenizers: router.tokenizers().report(),
                memo: router.tokenizers().memo(),
            }
        })
    }

    /// Readings that come from elsewhere.
    pub(crate) fn from_fn(take: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// What the router knows now.
    #[must_use]
    pub fn take(&self) -> Reading {
        (self.0)()
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readings").finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use kv_index::Slots;
    use router::pool::{Endpoint, EngineHints, Health, LastFailure, ModelCard, Pod, Record, Role};
    use tokio::time::Instant;

    use super::*;

    fn record(health: Health) -> Record {
        let mut record = Record::default();
        if health == Health::Unproven {
            let reason = "cannot connect: refused".into();
            record.last_failure = Some(LastFailure { reason, at: Instant::now() });
        }
        record
    }

    /// Two ready pods, one of them with work and a queue, and one that is not proven yet.
    pub(crate) fn reading() -> Reading {
        let mut slots = Slots::default();
        let mut endpoint = |number: u8, health, waiting, kv_usage| {
            let card = ModelCard {
                id: "tiny".into(),
                parent: None,
                max_model_len: Some(2048),
                raw: r#"{"id":"tiny"}"#.into(),
            };
            Arc::new(Endpoint {
                pod: Pod {
                    uid: format!("uid-{number}").into(),
                    name: format!("pod-{number}").into(),
                    addr: ([10, 0, 0, number], 8000).into(),
                    role: Role::Both,
                    topology: None,
                    kv_ports: None,
                    rank: None,
                },
                slot: slots.acquire(),
                health,
                is_cordoned: false,
                models: Arc::new([card]),
                engine: EngineHints { waiting, kv_usage, ..EngineHints::default() },
                kv_events: Arc::default(),
                record: record(health),
            })
        };
        let endpoints = vec![
            endpoint(1, Health::Ready, 3.0, 0.5),
            endpoint(2, Health::Ready, 0.0, 0.25),
            endpoint(3, Health::Unproven, 9.0, 1.0),
        ];
        let busy = Load { prefill_tokens: 100, requests: 2, ..Load::default() };
        Reading {
            snapshot: Arc::new(Snapshot { endpoints, ..Snapshot::default() }),
            loads: vec![busy, Load::default(), Load::default()],
            blocks: vec![7, 5, 0],
            failures: Failures { failed_probes: 4, ..Failures::default() },
            booked: Totals { prefill_tokens: 100, requests: 2 },
            approximate_blocks: 12,
            approximate_bytes: 3456,
            exact_blocks: 40,
            exact_bytes: 4096,
            tokenizers: vec![TokenizerReport {
                model: "tiny".into(),
                source: "hf:owner/tiny".to_owned(),
                state: "failed",
                trouble: Some("tokenizer.json: no route to host".to_owned()),
            }],
            memo: MemoReport { bytes: 4567, found_tokens: 900, made_tokens: 100 },
        }
    }
}
