//! What an engine has done, in the units of vLLM's metrics.

use std::time::Duration;

use super::sequence::Sequence;

/// A cumulative histogram with fixed bounds.
#[derive(Debug, Clone)]
pub struct Histogram {
    /// Upper bounds, ascending, without +Inf.
    pub bounds: &'static [f64],
    /// Observations per bound, then those above the last; not cumulative.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: f64,
}

/// Counters since the engine started.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Tokens whose cache state was asked: every admitted prompt's length.
    pub prefix_cache_queries: u64,
    /// Tokens that were found.
    pub prefix_cache_hits: u64,
    /// Prompt tokens of requests that reached their first token, cached ones included.
    pub prompt_tokens: u64,
    /// Of those, found in the cache.
    pub prompt_tokens_cached: u64,
    /// Of those, read from another pod's memory.
    pub prompt_tokens_received: u64,
    /// Prompt tokens asked of another pod.
    pub external_queries: u64,
    /// Of those, read there.
    pub external_hits: u64,
    /// Requests that read KV from another pod that was not that of their prompt. Nobody but the
    /// simulator can know: vLLM answers them with 200.
    pub tainted: u64,
    /// Transfers that worked.
    pub transfers: u64,
    /// Transfers that did not.
    pub failed_transfers: u64,
    /// Blocks kept for another pod that never came.
    pub expired_leases: u64,
    /// Tokens generated.
    pub generation_tokens: u64,
    /// Requests ended by a stop token or stop string.
    pub finished_stop: u64,
    /// Requests ended by their token limit.
    pub finished_length: u64,
    /// Requests whose client went away. vLLM 0.32 keeps its own counter of these at 0.
    pub aborted: u64,
    /// Running sequences that had to give their blocks back.
    pub preemptions: u64,
    /// Requests refused because the queue was full.
    pub rejections: u64,
    pub ttft_s: Histogram,
    pub inter_token_s: Histogram,
    pub time_per_output_token_s: Histogram,
    pub e2e_s: Histogram,
    pub queue_s: Histogram,
    pub prefill_s: Histogram,
    pub decode_s: Histogram,
    pub inference_s: Histogram,
    pub request_prompt_tokens: Histogram,
    pub request_generation_tokens: Histogram,
    /// Prompt tokens that were neither cached nor received.
    pub request_prefill_computed: Histogram,
    pub request_max_tokens: Histogram,
    pub request_preemptions: Histogram,
    /// Answers that an API request asked for (`n`).
    pub request_n: Histogram,
    /// Tokens of its longest answer.
    pub request_longest: Histogram,
    pub iteration_tokens: Histogram,
}

/// vLLM's bounds for the time to the first token, in seconds.
const TTFT_S: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
/// vLLM's bounds for gaps between tokens, in seconds.
const INTER_TOKEN_S: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
/// vLLM's bounds for whole requests and their phases, in seconds.
const REQUEST_S: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
/// vLLM's bounds for tokens per request: 1, 2, 5 × powers of ten. A page has those up to the model's
/// length, see [`Histogram::up_to`].
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
    5e5, 1e6, 2e6, 5e6,
];
/// vLLM's bounds for `n`.
const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];
/// vLLM's bounds for preemptions of one request.
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
/// vLLM's bounds for tokens per engine step.
const ITERATION_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

// === impl Histogram ===

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Adds one observation.
    pub fn observe(&mut self, value: f64) {
        let slot = self.bounds.partition_point(|bound| *bound < value);
        self.counts[slot] += 1;
        self.sum += value;
    }

    /// Adds one duration, in seconds.
    pub fn observe_time(&mut self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// The same with no bound above `limit`.
    pub(super) fn up_to(&self, limit: f64) -> Self {
        let kept = self.bounds.partition_point(|bound| *bound <= limit);
        let above = self.counts[kept..].iter().sum();
        let counts = self.counts[..kept].iter().copied().chain([above]).collect();
        Self { bounds: &self.bounds[..kept], counts, sum: self.sum }
    }

    /// How many observations there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

// === impl Stats ===

impl Stats {
    /// A request has ended at `end`.
    pub(super) fn ended(&mut self, sequence: &Sequence, end: Duration) {
        self.e2e_s.observe_time(end.saturating_sub(sequence.arrived));
        self.request_prompt_tokens.observe(sequence.prompt.tokens.len() as f64);
        self.request_generation_tokens.observe(sequence.generated() as f64);
        let known = sequence.cached_tokens + sequence.received_tokens;
        self.request_prefill_computed.observe((sequence.prompt.tokens.len() - known) as f64);
        self.request_preemptions.observe(sequence.preemptions as f64);
        // An embedding has no limit.
        if sequence.prompt.max_tokens > 0 {
            self.request_max_tokens.observe(sequence.prompt.max_tokens as f64);
        }
        if let Some((n, longest)) = sequence.end() {
            self.request_n.observe(n as f64);
            self.request_longest.observe(longest as f64);
        }
        let Some(admitted) = sequence.admitted else { return };
        self.queue_s.observe_time(admitted.saturating_sub(sequence.arrived));
        self.inference_s.observe_time(end.saturating_sub(admitted));
        let Some(first) = sequence.first_token else { return };
        let decode = end.saturating_sub(first);
        self.prefill_s.observe_time(first.saturating_sub(admitted));
        self.decode_s.observe_time(decode);
        if sequence.generated() > 1 {
            let gaps = (sequence.generated() - 1) as f64;
            self.time_per_output_token_s.observe(decode.as_secs_f64() / gaps);
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            prefix_cache_queries: 0,
            prefix_cache_hits: 0,
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            prompt_tokens_received: 0,
            external_queries: 0,
            external_hits: 0,
            tainted: 0,
            transfers: 0,
            failed_transfers: 0,
            expired_leases: 0,
            generation_tokens: 0,
            finished_stop: 0,
            finished_length: 0,
            aborted: 0,
            preemptions: 0,
            rejections: 0,
            ttft_s: Histogram::new(TTFT_S),
            inter_token_s: Histogram::new(INTER_TOKEN_S),
            time_per_output_token_s: Histogram::new(INTER_TOKEN_S),
            e2e_s: Histogram::new(REQUEST_S),
            queue_s: Histogram::new(REQUEST_S),
            prefill_s: Histogram::new(REQUEST_S),
            decode_s: Histogram::new(REQUEST_S),
            inference_s: Histogram::new(REQUEST_S),
            request_prompt_tokens: Histogram::new(TOKENS),
            request_generation_tokens: Histogram::new(TOKENS),
            request_prefill_computed: Histogram::new(TOKENS),
            request_max_tokens: Histogram::new(TOKENS),
            request_preemptions: Histogram::new(PREEMPTIONS),
            request_n: Histogram::new(CHOICES),
            request_longest: Histogram::new(TOKENS),
            iteration_tokens: Histogram::new(ITERATION_TOKENS),
        }
    }
}
