//! The metrics of requests and of the process, registered once. Those of pods, bookings and index
//! are read when they are scraped (`scrape.rs`).
//!
//! A label is one of a closed set of `&'static str` (route, reason), an HTTP status, or the name of
//! a model that some pod serves; nothing that a client makes up becomes a label.

mod families;
mod queue;
mod splits;
#[cfg(test)]
mod tests;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

pub use queue::Queue;
pub use splits::Splits;

use super::epp_names::EppNames;
use super::registrar::Registrar;
use families::{Counts, Times, Tokens};

/// The label of a model that no pod serves.
pub const UNKNOWN_MODEL: &str = "unknown";

/// All families; their help texts say what they count.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The same under an Endpoint Picker's names, if wanted.
    pub epp: Option<EppNames>,
    counts: Counts,
    times: Times,
    tokens: Tokens,
    /// Requests of fleets in which some pods only prefill.
    pub splits: Splits,
    /// Requests that wait for a place at a pod.
    pub queue: Queue,
    in_flight: IntGauge,
    /// Bytes of request bodies in memory: the count that `limits.bodies_held` bounds.
    pub body_bytes_held: IntGauge,
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
    /// TLS handshakes that failed or took too long.
    pub failed_handshakes: IntCounter,
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

/// One that a gauge counts until this is dropped.
#[derive(Debug)]
pub struct Held(IntGauge);

// === impl Metrics ===

impl Metrics {
    /// Registers all families.
    ///
    /// # Errors
    /// The registry has one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let of = Registrar(registry);
        Ok(Self {
            epp: None,
            counts: Counts::register(&of)?,
            times: Times::register(&of)?,
            tokens: Tokens::register(&of)?,
            splits: Splits::register(&of)?,
            queue: Queue::register(&of)?,
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
            failed_handshakes: of.counter(
                "hearth_tls_handshakes_failed_total",
                "TLS handshakes that failed or took too long.",
            )?,
        })
    }

    /// Counts under an Endpoint Picker's names too.
    ///
    /// # Errors
    /// The registry has one of the names already.
    pub fn with_epp_names(self, registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self { epp: Some(EppNames::register(&Registrar(registry))?), ..self })
    }

    /// Counts a request in flight until the guard is dropped.
    #[must_use]
    pub fn request_begins(&self) -> Held {
        Held::new(&self.in_flight)
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
        self.counts.requests.with_label_values(&labels).inc();
        self.times.duration.with_label_values(&[route]).observe(seconds);
    }

    /// Counts an error of the gateway's own, by its label.
    pub fn error(&self, reason: &'static str) {
        self.counts.errors.with_label_values(&[reason]).inc();
    }

    /// Counts a stream whose pod failed, by what became of it.
    pub fn migration(&self, outcome: &'static str) {
        self.counts.migrations.with_label_values(&[outcome]).inc();
    }

    /// Counts a stream whose first token was late, by what came of asking a second pod.
    pub fn rescue(&self, outcome: &'static str) {
        self.counts.rescues.with_label_values(&[outcome]).inc();
    }

    /// Counts a request that asked for a model by a name of ours, and what it stood for.
    pub fn alias(&self, alias: &str, model: &str) {
        self.counts.aliases.with_label_values(&[alias, model]).inc();
    }

    /// Counts a further attempt, by why the one before failed.
    pub fn retry(&self, reason: &'static str) {
        self.counts.retries.with_label_values(&[reason]).inc();
    }

    /// Observes a time to first token.
    pub fn first_token(&self, model: Option<&str>, seconds: f64) {
        self.times.ttft.with_label_values(&[model.unwrap_or(UNKNOWN_MODEL)]).observe(seconds);
    }

    /// Observes an answer's mean time per output token.
    pub fn output_token_time(&self, model: Option<&str>, seconds: f64) {
        self.times.tpot.with_label_values(&[model.unwrap_or(UNKNOWN_MODEL)]).observe(seconds);
    }

    /// Observes the time of one decision.
    pub fn decision(&self, seconds: f64) {
        self.times.decision.observe(seconds);
    }

    /// Counts the tokens of a request.
    pub fn tokens(&self, model: Option<&str>, tokens: TokenCounts) {
        let model = [model.unwrap_or(UNKNOWN_MODEL)];
        self.tokens.prompt.with_label_values(&model).inc_by(tokens.prompt);
        self.tokens.matched.with_label_values(&model).inc_by(tokens.matched);
        self.tokens.cached.with_label_values(&model).inc_by(tokens.cached);
        self.tokens.output.with_label_values(&model).inc_by(tokens.output);
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
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
