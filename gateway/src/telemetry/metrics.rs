//! The metrics of requests and of the process, registered once. Those of pods, bookings and index
//! are in [`super::router_metrics`].
//!
//! A label is one of a closed set of `&'static str` (route, reason), an HTTP status, or the name of
//! a model that some pod serves; nothing that a client makes up becomes a label.

#[cfg(test)]
mod tests;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// The label of a model that no pod serves.
pub const UNKNOWN_MODEL: &str = "unknown";

/// Seconds to a first token: a warm short prompt takes milliseconds, a queue minutes.
const TTFT_BUCKETS: &[f64] = &[
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

/// All families. Each field is one; its help text says what it counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    errors: IntCounterVec,
    retries: IntCounterVec,
    ttft: HistogramVec,
    tpot: HistogramVec,
    duration: HistogramVec,
    decision: Histogram,
    prompt_tokens: IntCounterVec,
    matched_tokens: IntCounterVec,
    cached_tokens: IntCounterVec,
    output_tokens: IntCounterVec,
    in_flight: IntGauge,
    body_bytes_held: IntGauge,
    config_info: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
    /// Guarded fields taken out of clients' bodies.
    pub guarded_fields_removed: IntCounter,
    /// Clients that hung up before the end of their answer.
    pub client_gone: IntCounter,
    /// Access-log lines that found the queue full, or stdout closed.
    pub log_lines_dropped: IntCounter,
    /// Certificate files that were new and could not be used.
    pub certificate_reload_failures: IntCounter,
}

/// The tokens of a request that has ended, as far as known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Of these, what the index said the chosen pod holds.
    pub matched: u64,
    /// Of these, what the pod said it reused (`usage.prompt_tokens_details.cached_tokens`).
    pub cached: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// An amount that a gauge counts until this is dropped.
#[derive(Debug)]
pub struct Held {
    gauge: IntGauge,
    amount: i64,
}

/// Makes families and registers them.
struct Registrar<'a>(&'a Registry);

// === impl Metrics ===

impl Metrics {
    /// Registers all families.
    ///
    /// # Errors
    /// The registry has one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of = Registrar(registry);
        Ok(Self {
            requests: of.counters(
                "hearth_requests_total",
                "Requests that have ended, by route, status and model.",
                &["route", "code", "model"],
            )?,
            errors: of.counters(
                "hearth_errors_total",
                "Requests that the gateway itself answered with an error, or cut, by reason.",
                &["reason"],
            )?,
            retries: of.counters(
                "hearth_retries_total",
                "Attempts after the first, by why the one before failed.",
                &["reason"],
            )?,
            ttft: of.histograms(
                "hearth_time_to_first_token_seconds",
                "From a request's head to the first content token sent to the client.",
                TTFT_BUCKETS,
                &["model"],
            )?,
            tpot: of.histograms(
                "hearth_time_per_output_token_seconds",
                "Mean time per output token after the first, one observation per answer.",
                TPOT_BUCKETS,
                &["model"],
            )?,
            duration: of.histograms(
                "hearth_request_duration_seconds",
                "From a request's head to the end of its answer.",
                DURATION_BUCKETS,
                &["route"],
            )?,
            decision: of.histogram(
                "hearth_decision_seconds",
                "Choosing a pod: overlap and cost, without reading or tokenising the request.",
                DECISION_BUCKETS,
            )?,
            prompt_tokens: of.counters(
                "hearth_prompt_tokens_total",
                "Tokens of prompts.",
                &["model"],
            )?,
            matched_tokens: of.counters(
                "hearth_matched_tokens_total",
                "Tokens of prompts that the index said the chosen pod holds.",
                &["model"],
            )?,
            cached_tokens: of.counters(
                "hearth_cached_tokens_total",
                "Tokens of prompts that pods said they reused.",
                &["model"],
            )?,
            output_tokens: of.counters(
                "hearth_output_tokens_total",
                "Tokens of answers.",
                &["model"],
            )?,
            in_flight: of.gauge("hearth_requests_in_flight", "Requests that have not ended.")?,
            body_bytes_held: of
                .gauge("hearth_request_body_bytes_held", "Bytes of request bodies in memory.")?,
            config_info: of.gauges(
                "hearth_config_info",
                "1, with a fingerprint of the settings in force.",
                &["hash"],
            )?,
            certificate_expiry: of.gauges(
                "hearth_tls_certificate_expiry_seconds",
                "When the certificate in use expires, in seconds since 1970.",
                &[],
            )?,
            guarded_fields_removed: of.counter(
                "hearth_guarded_fields_removed_total",
                "Fields that no client may set, taken out of request bodies.",
            )?,
            client_gone: of.counter(
                "hearth_client_gone_total",
                "Clients that hung up before the end of their answer.",
            )?,
            log_lines_dropped: of.counter(
                "hearth_log_lines_dropped_total",
                "Access-log lines that found the queue full or stdout closed.",
            )?,
            certificate_reload_failures: of.counter(
                "hearth_tls_certificate_reload_failures_total",
                "New certificate files that could not be used; the old ones stay in use.",
            )?,
        })
    }

    /// Counts a request in flight until the guard is dropped.
    #[must_use]
    pub fn request_begins(&self) -> Held {
        Held::new(&self.in_flight, 1)
    }

    /// Counts so many bytes of a request body as held until the guard is dropped.
    #[must_use]
    pub fn hold_body(&self, bytes: usize) -> Held {
        Held::new(&self.body_bytes_held, i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// Counts a request that has ended. `model` is a name that a pod serves, or none.
    pub fn request_ends(
        &self,
        route: &'static str,
        code: http::StatusCode,
        model: Option<&str>,
        seconds: f64,
    ) {
        let labels = [route, code.as_str(), model.unwrap_or(UNKNOWN_MODEL)];
        self.requests.with_label_values(&labels).inc();
        self.duration.with_label_values(&[route]).observe(seconds);
    }

    /// Counts an error of the gateway's own, by its label.
    pub fn error(&self, reason: &'static str) {
        self.errors.with_label_values(&[reason]).inc();
    }

    /// Counts a further attempt, by why the one before failed.
    pub fn retry(&self, reason: &'static str) {
        self.retries.with_label_values(&[reason]).inc();
    }

    /// Observes a time to first token.
    pub fn first_token(&self, model: Option<&str>, seconds: f64) {
        self.ttft.with_label_values(&[model.unwrap_or(UNKNOWN_MODEL)]).observe(seconds);
    }

    /// Observes an answer's mean time per output token.
    pub fn output_token_time(&self, model: Option<&str>, seconds: f64) {
        self.tpot.with_label_values(&[model.unwrap_or(UNKNOWN_MODEL)]).observe(seconds);
    }

    /// Observes the time of one decision.
    pub fn decision(&self, seconds: f64) {
        self.decision.observe(seconds);
    }

    /// Counts the tokens of a request.
    pub fn tokens(&self, model: Option<&str>, tokens: TokenCounts) {
        let model = [model.unwrap_or(UNKNOWN_MODEL)];
        self.prompt_tokens.with_label_values(&model).inc_by(tokens.prompt);
        self.matched_tokens.with_label_values(&model).inc_by(tokens.matched);
        self.cached_tokens.with_label_values(&model).inc_by(tokens.cached);
        self.output_tokens.with_label_values(&model).inc_by(tokens.output);
    }

    /// Shows the fingerprint of the settings in force.
    pub fn config_in_force(&self, hash: &str) {
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1);
    }

    /// Shows when the certificate in use expires, in seconds since 1970. Not shown before: a zero
    /// would look expired.
    pub fn certificate_expires(&self, unix_seconds: i64) {
        self.certificate_expiry.with_label_values::<&str>(&[]).set(unix_seconds);
    }
}

// === impl Held ===

impl Held {
    fn new(gauge: &IntGauge, amount: i64) -> Self {
        gauge.add(amount);
        Self { gauge: gauge.clone(), amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.amount);
    }
}

// === impl Registrar ===

impl Registrar<'_> {
    fn register<C: Collector + Clone + 'static>(&self, family: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }
}
