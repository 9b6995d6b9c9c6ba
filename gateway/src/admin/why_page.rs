//! What `/why` says: why requests went where they went, and what came of it.

use std::net::SocketAddr;

use jiff::Timestamp;
use router::policy::warm::Terms;
use router::split;
use router::why::{Explained, Row};
use serde::Serialize;

/// One decision in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhyRow {
    request_id: String,
    model: Option<String>,
    at: Timestamp,
    policy: &'static str,
    pick: Option<SocketAddr>,
    matched_tokens: Option<u32>,
    prompt_tokens: u32,
    predicted_ttft_ms: Option<f64>,
    /// `split`, or why not; null where no pod only prefills.
    split: Option<SplitRow>,
    came: CameRow,
}

/// One decision with all its candidates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhyPage {
    #[serde(flatten)]
    row: WhyRow,
    /// Pods that could have taken it; of many, only the cheapest are shown.
    eligible_pods: usize,
    candidates: Vec<CandidateRow>,
}

/// Whether another pod prefilled.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct SplitRow {
    verdict: &'static str,
    prefill: Option<SocketAddr>,
    /// The best pair against the best pod alone, if there was a pair.
    terms: Option<split::SplitTerms>,
}

/// What came of it; null is not known, or not yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct CameRow {
    outcome: &'static str,
    status: Option<u16>,
    ttft_ms: Option<f64>,
    prefill_ms: Option<f64>,
    transfer_ms: Option<f64>,
    prompt_tokens: Option<u32>,
    cached_tokens: Option<u32>,
    /// What that shows of `matched_tokens`, where the pod's own events had promised them.
    prediction: Option<&'static str>,
}

/// One pod that could have taken it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct CandidateRow {
    pod: SocketAddr,
    chosen: bool,
    matched_tokens: u32,
    known_tokens: u32,
    trust: &'static str,
    uncached_tokens: u32,
    is_home: bool,
    booked_requests: u32,
    booked_prefill_tokens: u64,
    recent_tokens: f64,
    prefill_ms_per_token: f64,
    eviction_age_ms: Option<u64>,
    cost_ms: f64,
    terms: Terms,
}

// === impl WhyRow ===

impl From<&Explained> for WhyRow {
    fn from(it: &Explained) -> Self {
        let pick = it.pick();
        Self {
            request_id: it.request_id.clone(),
            model: it.model.as_deref().map(str::to_owned),
            at: Timestamp::try_from(it.at).unwrap_or_default(),
            policy: it.policy.name(),
            pick: pick.map(|row| row.addr),
            matched_tokens: pick.map(|row| row.candidate.known_tokens),
            prompt_tokens: it.prompt_tokens,
            predicted_ttft_ms: pick
                .map(|row| predicted_ttft_ms(it, row))
                .filter(|predicted_ms| *predicted_ms > 0.0),
            split: it.split.map(|it| SplitRow {
                verdict: it.verdict,
                prefill: it.prefill,
                terms: it.terms,
            }),
            came: CameRow {
                outcome: it.came.outcome.name(),
                status: it.came.status,
                ttft_ms: it.came.ttft_ms,
                prefill_ms: it.came.prefill_ms,
                transfer_ms: it.came.transfer_ms,
                prompt_tokens: it.came.prompt_tokens,
                cached_tokens: it.came.cached_tokens,
                prediction: it.came.prediction.map(|it| it.word()),
            },
        }
    }
}

/// Of a split request, what the pair takes; else what the pod alone does.
fn predicted_ttft_ms(it: &Explained, row: &Row) -> f64 {
    let split = it.split.filter(|split| split.prefill.is_some()).and_then(|split| split.terms);
    let pair = split.map(|it| it.queued_ms + it.prefill_ms + it.transfer_ms);
    pair.unwrap_or_else(|| row.candidate.terms.ttft_ms())
}

// === impl WhyPage ===

impl From<&Explained> for WhyPage {
    fn from(it: &Explained) -> Self {
        let rows = it.rows.iter().enumerate();
        Self {
            row: WhyRow::from(it),
            eligible_pods: it.candidates,
            candidates: rows.map(|(at, row)| CandidateRow::of(row, at == it.chosen)).collect(),
        }
    }
}

// === impl CandidateRow ===

impl CandidateRow {
    fn of(row: &Row, chosen: bool) -> Self {
        let it = &row.candidate;
        Self {
            pod: row.addr,
            chosen,
            matched_tokens: it.matched_tokens,
            known_tokens: it.known_tokens,
            trust: it.trust.word(),
            uncached_tokens: it.uncached_tokens,
            is_home: it.is_home,
            booked_requests: it.load.requests,
            booked_prefill_tokens: it.load.prefill_tokens,
            recent_tokens: it.load.recent_tokens,
            prefill_ms_per_token: it.load.prefill_ms_per_token,
            eviction_age_ms: it.eviction_age_ms,
            cost_ms: it.cost_ms,
            terms: it.terms,
        }
    }
}
