//! The labelled families in three groups.

use prometheus::{Error, Histogram, HistogramOpts, HistogramVec, IntCounterVec};

use crate::refuse::{CLIENT_SLOW, ENVOY, ERROR_EVENT, POD_ERROR};
use crate::telemetry::registrar::Registrar;

/// Seconds to a first token: a warm short prompt takes milliseconds, a queue minutes.
pub(super) const TTFT_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.4, 0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 20.0, 40.0,
    80.0, 160.0, 600.0,
];
/// Seconds per output token after the first: 1 ms (small model, idle) to 1 s (overload).
const TPOT_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0];
/// Seconds from a request's head to the end of its answer.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
];
/// Seconds to decide: the bar is 1 ms at the 99th percentile.
const DECISION_BUCKETS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005,
    0.01, 0.05,
];

/// How requests and attempts ended.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) requests: IntCounterVec,
    pub(super) errors: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) migrations: IntCounterVec,
    pub(super) rescues: IntCounterVec,
    pub(super) aliases: IntCounterVec,
}

/// How long things took.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) ttft: HistogramVec,
    pub(super) tpot: HistogramVec,
    pub(super) duration: HistogramVec,
    pub(super) decision: Histogram,
}

/// Tokens by model.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    pub(super) prompt: IntCounterVec,
    pub(super) matched: IntCounterVec,
    pub(super) cached: IntCounterVec,
    pub(super) output: IntCounterVec,
}

// === impl Counts ===

impl Counts {
    pub(super) fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        Ok(Self {
            requests: of.counters(
                "hearth_requests_total",
                "Requests that have ended, by route, status and model.",
                &["route", "code", "model"],
            )?,
            errors: of.counters_from_zero(
                "hearth_errors_total",
                "Requests that ended in an error of the gateway, a pod's or an Envoy's 5xx, or a cut, by reason.",
                ("reason", &[CLIENT_SLOW, ENVOY, ERROR_EVENT, POD_ERROR]),
            )?,
            retries: of.counters_from_zero(
                "hearth_retries_total",
                "Attempts after the first, by why the one before failed; the usual reasons from 0 on.",
                ("reason", &["busy", "connect_refused", "connect_timeout", "reset", "status_500"]),
            )?,
            migrations: of.counters_from_zero(
                "hearth_migrations_total",
                "Streams whose pod failed after the first token, by what became of them: continued, completed (only the end was missing), failed (no other pod took it), or why they could not go on.",
                ("outcome", &["continued", "completed", "failed"]),
            )?,
            rescues: of.counters_from_zero(
                "hearth_rescues_total",
                "Streams whose first token was late, by what came of asking a second pod: won (it spoke first), lost (the first did), failed (both), or why none was asked: full (no other pod had a free place), not_faster, over_budget.",
                ("outcome", &["won", "lost", "failed", "full", "not_faster", "over_budget"]),
            )?,
            aliases: of.counters(
                "hearth_alias_requests_total",
                "Requests that asked for a model by a name of `model_names`, by what it stood for.",
                &["alias", "model"],
            )?,
        })
    }
}

// === impl Times ===

impl Times {
    pub(super) fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let ttft = HistogramOpts::new(
            "hearth_time_to_first_token_seconds",
            "From a request's head to the first content token sent to the client.",
        );
        let tpot = HistogramOpts::new(
            "hearth_time_per_output_token_seconds",
            "Mean time per output token after the first, one observation per answer.",
        );
        let duration = HistogramOpts::new(
            "hearth_request_duration_seconds",
            "From a request's head to the end of its answer.",
        );
        let decision = HistogramOpts::new(
            "hearth_decision_seconds",
            "Choosing a pod: overlap and cost, without reading or tokenising the request.",
        );
        let decision = decision.buckets(DECISION_BUCKETS.to_vec());
        Ok(Self {
            ttft: of.histograms(ttft.buckets(TTFT_BUCKETS.to_vec()), &["model"])?,
            tpot: of.histograms(tpot.buckets(TPOT_BUCKETS.to_vec()), &["model"])?,
            duration: of.histograms(duration.buckets(DURATION_BUCKETS.to_vec()), &["route"])?,
            decision: of.register(Histogram::with_opts(decision)?)?,
        })
    }
}

// === impl Tokens ===

impl Tokens {
    pub(super) fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let tokens = |name: &str, help: &str| of.counters(name, help, &["model"]);
        Ok(Self {
            prompt: tokens("hearth_prompt_tokens_total", "Tokens of prompts.")?,
            matched: tokens(
                "hearth_matched_tokens_total",
                "Tokens of prompts that the index said the chosen pod holds.",
            )?,
            cached: tokens(
                "hearth_cached_tokens_total",
                "Tokens of prompts that pods said they reused.",
            )?,
            output: tokens("hearth_output_tokens_total", "Tokens of answers.")?,
        })
    }
}
