//! `/metrics` in vLLM 0.32's names and labels, with numbers of what happened.

mod page;

use self::page::Page;
use super::{
    config::{Config, Connector},
    engine::Engine,
    stats::Histogram,
};

/// Everything a pod tells about itself.
pub(super) fn page(engine: &Engine, config: &Config, reading: usize) -> String {
    let mut page = Page::new(&config.model);
    gauges(&mut page, engine, reading);
    zeros(&mut page);
    counters(&mut page, engine);
    sources(&mut page, engine);
    finished(&mut page, engine);
    sizes(&mut page, engine, config.context_tokens());
    times(&mut page, engine);
    if config.transfer.connector == Some(Connector::Nixl) {
        nixl(&mut page, engine);
    }
    cache_config(&mut page, config);
    page.text
}

/// `reading` requests wait for KV from another pod.
fn gauges(page: &mut Page<'_>, engine: &Engine, reading: usize) {
    let (running, deferred) = (engine.running() as f64, reading as f64);
    let capacity = engine.waiting() as f64;
    let waiting = capacity + deferred;
    page.gauge("num_requests_running", "Number of requests in model execution batches.", running);
    page.gauge("num_requests_waiting", "Number of requests waiting to be processed.", waiting);
    page.labelled(
        ("num_requests_waiting_by_reason", "gauge", "Number of waiting requests by reason."),
        "reason",
        &[("capacity", capacity), ("deferred", deferred)],
    );
    page.labelled(
        ("engine_sleep_state", "gauge", "Engine sleep state."),
        "sleep_state",
        &[("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0)],
    );
    let help = "KV-cache usage. 1 means 100 percent usage.";
    page.gauge("kv_cache_usage_perc", help, engine.cache_usage());
}

/// What there is none of here: nobody sends pictures, and vLLM too estimates only where it is asked to.
fn zeros(page: &mut Page<'_>) {
    let all = [
        (
            "estimated_flops_per_gpu_total",
            "Estimated number of floating point operations per GPU (for Model Flops Utilization \
             calculations).",
        ),
        (
            "estimated_read_bytes_per_gpu_total",
            "Estimated number of bytes read from memory per GPU (for Model Flops Utilization \
             calculations).",
        ),
        (
            "estimated_write_bytes_per_gpu_total",
            "Estimated number of bytes written to memory per GPU (for Model Flops Utilization \
             calculations).",
        ),
        (
            "mm_cache_queries_total",
            "Multi-modal cache queries, in terms of number of queried items.",
        ),
        ("mm_cache_hits_total", "Multi-modal cache hits, in terms of number of cached items."),
    ];
    for (name, help) in all {
        page.counter(name, help, 0.0);
    }
}

fn counters(page: &mut Page<'_>, engine: &Engine) {
    let stats = engine.stats();
    let plain: [(&str, &str, u64); 8] = [
        (
            "prefix_cache_queries_total",
            "Prefix cache queries, in terms of number of queried tokens.",
            stats.prefix_cache_queries,
        ),
        (
            "prefix_cache_hits_total",
            "Prefix cache hits, in terms of number of cached tokens.",
            stats.prefix_cache_hits,
        ),
        (
            "external_prefix_cache_queries_total",
            "External prefix cache queries from KV connector cross-instance cache sharing, in \
             terms of number of queried tokens.",
            stats.external_queries,
        ),
        (
            "external_prefix_cache_hits_total",
            "External prefix cache hits from KV connector cross-instance cache sharing, in terms \
             of number of cached tokens.",
            stats.external_hits,
        ),
        (
            "num_preemptions_total",
            "Cumulative number of preemption from the engine.",
            stats.preemptions,
        ),
        ("prompt_tokens_total", "Number of prefill tokens processed.", stats.prompt_tokens),
        (
            "prompt_tokens_cached_total",
            "Number of cached prompt tokens (local + external).",
            stats.prompt_tokens_cached,
        ),
        (
            "generation_tokens_total",
            "Number of generation tokens processed.",
            stats.generation_tokens,
        ),
    ];
    for (name, help, value) in plain {
        page.counter(name, help, value as f64);
    }
}

fn sources(page: &mut Page<'_>, engine: &Engine) {
    let stats = engine.stats();
    let cached = stats.prompt_tokens_cached as f64;
    let received = stats.prompt_tokens_received as f64;
    let computed = stats.prompt_tokens as f64 - cached - received;
    page.labelled(
        ("prompt_tokens_by_source_total", "counter", "Number of prompt tokens by source."),
        "source",
        &[
            ("local_compute", computed),
            ("local_cache_hit", cached),
            ("external_kv_transfer", received),
        ],
    );
    page.labelled(
        (
            "prompt_tokens_cached_by_source_total",
            "counter",
            "Prefix-cache hit tokens by the cache tier that supplied them.",
        ),
        "source",
        &[
            ("device", stats.prefix_cache_hits as f64),
            ("host", 0.0),
            ("p2p", 0.0),
            ("disk", 0.0),
            ("external_unspecified", 0.0),
        ],
    );
}

/// The NIXL connector's counters.
fn nixl(page: &mut Page<'_>, engine: &Engine) {
    let stats = engine.stats();
    let failed = "Number of failed NIXL KV Cache transfers.";
    page.counter("nixl_num_failed_transfers_total", failed, stats.failed_transfers as f64);
    let expired = "Number of requests that had their KV expire.";
    page.counter("nixl_num_kv_expired_reqs_total", expired, stats.expired_leases as f64);
}

fn finished(page: &mut Page<'_>, engine: &Engine) {
    let stats = engine.stats();
    let reasons = [
        ("stop", stats.finished_stop as f64),
        ("length", stats.finished_length as f64),
        // vLLM 0.32 does not count aborts here, though the label exists.
        ("abort", 0.0),
        ("error", 0.0),
        ("repetition", 0.0),
    ];
    let help = "Count of successfully processed requests.";
    page.labelled(("request_success_total", "counter", help), "finished_reason", &reasons);
    page.head(
        "admission_rejections_total",
        "counter",
        "Number of admission attempts rejected by a queue limit, by reason.",
    );
    let model = page.model;
    for (reason, value) in
        [("max_num_queued_reqs", stats.rejections as f64), ("max_num_queued_tokens", 0.0)]
    {
        let labels = format!("model_name=\"{model}\",reason=\"{reason}\"");
        page.sample("admission_rejections_total", &labels, value);
    }
}

/// `context_tokens` is what a request can be long.
fn sizes(page: &mut Page<'_>, engine: &Engine, context_tokens: usize) {
    let stats = engine.stats();
    let in_tokens: [(&str, &str, &Histogram); 5] = [
        (
            "request_prompt_tokens",
            "Number of prefill tokens processed.",
            &stats.request_prompt_tokens,
        ),
        (
            "request_generation_tokens",
            "Number of generation tokens processed.",
            &stats.request_generation_tokens,
        ),
        (
            "request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            &stats.request_longest,
        ),
        (
            "request_params_max_tokens",
            "Histogram of the max_tokens request parameter.",
            &stats.request_max_tokens,
        ),
        (
            "request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            &stats.request_prefill_computed,
        ),
    ];
    for (name, help, histogram) in in_tokens {
        page.histogram(name, help, &histogram.up_to(context_tokens as f64));
    }
    let others: [(&str, &str, &Histogram); 3] = [
        (
            "iteration_tokens_total",
            "Histogram of number of tokens per engine_step.",
            &stats.iteration_tokens,
        ),
        ("request_params_n", "Histogram of the n request parameter.", &stats.request_n),
        (
            "request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            &stats.request_preemptions,
        ),
    ];
    for (name, help, histogram) in others {
        page.histogram(name, help, histogram);
    }
}

fn times(page: &mut Page<'_>, engine: &Engine) {
    let stats = engine.stats();
    let all: [(&str, &str, &Histogram); 8] = [
        (
            "time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            &stats.ttft_s,
        ),
        (
            "inter_token_latency_seconds",
            "Histogram of inter-token latency in seconds.",
            &stats.inter_token_s,
        ),
        (
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            &stats.time_per_output_token_s,
        ),
        (
            "e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            &stats.e2e_s,
        ),
        (
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            &stats.queue_s,
        ),
        (
            "request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            &stats.inference_s,
        ),
        (
            "request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            &stats.prefill_s,
        ),
        (
            "request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            &stats.decode_s,
        ),
    ];
    for (name, help, histogram) in all {
        page.histogram(name, help, histogram);
    }
}

fn cache_config(page: &mut Page<'_>, config: &Config) {
    let engine = &config.engine;
    let tokens = engine.num_blocks * engine.block_size;
    let labels = format!(
        "_block_size_resolved=\"True\",block_size=\"{block}\",cache_dtype=\"auto\",\
         effective_attention_block_size=\"{block}\",enable_prefix_caching=\"True\",engine=\"0\",\
         gpu_memory_utilization=\"0.92\",hash_block_size=\"None\",kv_cache_max_concurrency=\
         \"{concurrency:?}\",kv_cache_size_tokens=\"{tokens}\",num_cpu_blocks=\"None\",\
         num_gpu_blocks=\"{blocks}\",num_gpu_blocks_override=\"None\",prefix_caching_hash_algo=\
         \"sha256\",sliding_window=\"None\",user_specified_block_size=\"True\"",
        block = engine.block_size,
        blocks = engine.num_blocks,
        concurrency = tokens as f64 / config.context_tokens().max(1) as f64,
    );
    page.head("cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
    page.sample("cache_config_info", &labels, 1.0);
}
