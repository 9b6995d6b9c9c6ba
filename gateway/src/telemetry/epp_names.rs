//! What dashboards for an Endpoint Picker ask for, by its names: those of the Gateway API inference
//! extension's picker (v0.5), and five `epp_*` that "hello-chris-llm-d" draws and no picker has.
//!
//! Two of its families have no counterpart here and are not told: the time of each request-control
//! plugin, and the bytes of a prefix hit (we match tokens).

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, exponential_buckets,
    linear_buckets,
};
use router::pool::Endpoint;

use super::metrics::{TokenCounts, UNKNOWN_MODEL};
use super::reading::Reading;
use super::registrar::{Registrar, as_f64};

/// The families that count as requests end.
#[derive(Clone, Debug)]
pub struct EppNames {
    models: Models,
    scheduler: Scheduler,
}

/// Those by model.
#[derive(Clone, Debug)]
struct Models {
    requests: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    input: HistogramVec,
    output: HistogramVec,
    per_token: HistogramVec,
}

/// Those of deciding.
#[derive(Clone, Debug)]
struct Scheduler {
    duration: Histogram,
    plugin: HistogramVec,
    hit_ratio: Histogram,
    epp_requests: IntCounter,
    epp_duration: Histogram,
    lookups: IntCounter,
    hits: IntCounter,
    decisions: IntCounterVec,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The name that a pod lists, if it got that far.
    pub model: Option<&'a str>,
    /// Its status.
    pub code: http::StatusCode,
    /// From its head to the end of its answer.
    pub seconds: f64,
    /// Of its body, and of the answer's.
    pub bytes: (usize, usize),
    /// What was decided, and what came of it; none: it did not get that far.
    pub decision: Option<Decided>,
}

/// What was decided for a request.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    /// By which policy.
    pub policy: &'static str,
    /// Whether another pod prefilled.
    pub is_split: bool,
    /// How long deciding took.
    pub seconds: f64,
    /// Its tokens.
    pub tokens: TokenCounts,
}

/// The value of the label `name`: the pool's name in the systems that these dashboards come from.
const POOL_NAME: &str = "llm-d";
const MODEL: [&str; 2] = ["model_name", "target_model_name"];

// === impl EppNames ===

impl EppNames {
    pub(super) fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        Ok(Self { models: Models::register(of)?, scheduler: Scheduler::register(of)? })
    }

    /// Counts a request that has ended.
    pub fn ended(&self, it: &Ended<'_>) {
        self.models.ended(it);
        if let Some(decided) = &it.decision {
            self.scheduler.decided(decided);
        }
    }
}

// === impl Models ===

impl Models {
    fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let [model, target] = MODEL;
        let by_model = |name: &str, help: &str, buckets: Vec<f64>| {
            let name = format!("inference_model_{name}");
            of.histograms(HistogramOpts::new(name, help).buckets(buckets), &MODEL)
        };
        let seconds = exponential_buckets(0.005, 2.0, 18)?;
        let sizes = exponential_buckets(64.0, 4.0, 11)?;
        let counts = exponential_buckets(1.0, 2.0, 18)?;
        let per_token = exponential_buckets(0.001, 2.0, 14)?;
        Ok(Self {
            requests: of.counters(
                "inference_model_request_total",
                "Requests that have ended.",
                &MODEL,
            )?,
            errors: of.counters(
                "inference_model_request_error_total",
                "Requests that ended with 4xx or 5xx.",
                &[model, target, "error_code"],
            )?,
            duration: by_model(
                "request_duration_seconds",
                "From a request's head to the end of its answer.",
                seconds,
            )?,
            request_bytes: by_model("request_sizes", "Bytes of request bodies.", sizes.clone())?,
            response_bytes: by_model("response_sizes", "Bytes of answers.", sizes)?,
            input: by_model("input_tokens", "Tokens of prompts.", counts.clone())?,
            output: by_model("output_tokens", "Tokens of answers.", counts)?,
            per_token: by_model(
                "normalized_time_per_output_token_seconds",
                "A request's duration by the tokens of its answer.",
                per_token,
            )?,
        })
    }

    fn ended(&self, it: &Ended<'_>) {
        let model = it.model.unwrap_or(UNKNOWN_MODEL);
        let labels = [model, model];
        self.requests.with_label_values(&labels).inc();
        if it.code.is_client_error() || it.code.is_server_error() {
            self.errors.with_label_values(&[model, model, it.code.as_str()]).inc();
        }
        self.duration.with_label_values(&labels).observe(it.seconds);
        let (request, response) = it.bytes;
        self.request_bytes.with_label_values(&labels).observe(as_f64(request));
        self.response_bytes.with_label_values(&labels).observe(as_f64(response));
        let Some(TokenCounts { prompt, output, .. }) = it.decision.map(|it| it.tokens) else {
            return;
        };
        self.input.with_label_values(&labels).observe(as_f64(prompt));
        self.output.with_label_values(&labels).observe(as_f64(output));
        if output > 0 {
            self.per_token.with_label_values(&labels).observe(it.seconds / as_f64(output));
        }
    }
}

// === impl Scheduler ===

impl Scheduler {
    fn register(of: &Registrar<'_>) -> Result<Self, Error> {
        let buckets = exponential_buckets(0.000_01, 2.5, 12)?;
        let plain = |name: &str, help: &str, buckets: Vec<f64>| {
            of.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?)
        };
        let plugin = HistogramOpts::new(
            "inference_extension_scheduler_plugin_duration_seconds",
            "Choosing a pod, which is one step here.",
        );
        Ok(Self {
            duration: plain(
                "inference_extension_scheduler_e2e_duration_seconds",
                "Choosing a pod, all attempts together.",
                buckets.clone(),
            )?,
            plugin: of
                .histograms(plugin.buckets(buckets.clone()), &["plugin_type", "plugin_name"])?,
            hit_ratio: plain(
                "inference_extension_prefix_indexer_hit_ratio",
                "Share of each prompt that the index said the chosen pod holds.",
                linear_buckets(0.0, 0.1, 11)?,
            )?,
            epp_requests: of.counter("epp_requests_total", "Requests that got a pod.")?,
            epp_duration: plain(
                "epp_request_duration_seconds",
                "Choosing a pod, all attempts together.",
                buckets,
            )?,
            lookups: of.counter("epp_cache_requests_total", "Prompts that were looked up.")?,
            hits: of.counter(
                "epp_cache_hits_total",
                "Prompts of which the chosen pod held a part, by the index.",
            )?,
            decisions: of.counters(
                "epp_routing_decisions_total",
                "Requests that got a pod: warm, cold or split.",
                &["decision_type"],
            )?,
        })
    }

    fn decided(&self, it: &Decided) {
        let TokenCounts { prompt, matched, .. } = it.tokens;
        for histogram in [&self.duration, &self.epp_duration] {
            histogram.observe(it.seconds);
        }
        self.plugin.with_label_values(&["policy", it.policy]).observe(it.seconds);
        self.hit_ratio.observe(as_f64(matched) / as_f64(prompt.max(1)));
        self.epp_requests.inc();
        self.lookups.inc();
        self.hits.inc_by(u64::from(matched > 0));
        let kind = match (it.is_split, matched) {
            (true, _) => "split",
            (false, 0) => "cold",
            (false, _) => "warm",
        };
        self.decisions.with_label_values(&[kind]).inc();
    }
}

/// Registers the families that are read with what they say now.
pub(super) fn read(of: &Registrar<'_>, reading: &Reading) -> Result<(), Error> {
    let ready: Vec<_> = reading.snapshot.ready().collect();
    let mean = |of: fn(&Endpoint) -> f64| {
        let sum: f64 = ready.iter().map(|it| of(it)).sum();
        if ready.is_empty() { 0.0 } else { sum / as_f64(ready.len()) }
    };
    for (name, help, value) in [
        ("inference_pool_ready_pods", "Pods that may get traffic.", as_f64(ready.len())),
        (
            "inference_pool_average_queue_size",
            "Requests waiting in an engine, the mean over ready pods.",
            mean(|it| it.engine.waiting),
        ),
        (
            "inference_pool_average_kv_cache_utilization",
            "Share of KV blocks in use, 0 to 1, the mean over ready pods.",
            mean(|it| it.engine.kv_usage),
        ),
    ] {
        of.float_gauges(name, help, &["name"])?.with_label_values(&[POOL_NAME]).set(value);
    }
    let queue = of.float_gauges(
        "inference_pool_per_pod_queue_size",
        "Requests waiting in the engine of each ready pod.",
        &["name", "model_server_pod"],
    )?;
    for endpoint in &ready {
        let labels = [POOL_NAME, &endpoint.pod.name];
        queue.with_label_values(&labels).set(endpoint.engine.waiting);
    }
    pods(of, reading)?;
    of.float_gauges("inference_extension_prefix_indexer_size", "Blocks in the KV index.", &[])?
        .with_label_values::<&str>(&[])
        .set(as_f64(reading.approximate_blocks + reading.exact_blocks));
    of.gauges("inference_extension_info", "1, with what this is.", &["commit", "build_ref"])?
        .with_label_values(&["", concat!("hearth-", env!("CARGO_PKG_VERSION"))])
        .set(1);
    Ok(())
}

fn pods(of: &Registrar<'_>, reading: &Reading) -> Result<(), Error> {
    let running = of.gauges(
        "inference_model_running_requests",
        "Requests booked on pods, by the first model of each.",
        &["model_name"],
    )?;
    let health =
        of.gauges("epp_backend_health", "1 for each pod that may get traffic.", &["backend"])?;
    for (endpoint, load) in reading.snapshot.endpoints.iter().zip(&reading.loads) {
        let model = endpoint.models.first().map_or(UNKNOWN_MODEL, |card| &*card.id);
        running.with_label_values(&[model]).add(i64::from(load.requests));
        let backend = endpoint.pod.addr.to_string();
        health.with_label_values(&[&backend]).set(i64::from(endpoint.is_ready()));
    }
    Ok(())
}
