//! What a policy achieved, and what one shared cache would have reused.

use std::time::Duration;

use serde::Serialize;

use super::fleet::{Fleet, Slo};
use super::traffic::{Request, Traffic};
use super::world::Came;
use crate::simulator::BlockCache;

/// A policy's figures on one workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The policy.
    pub policy: String,
    /// Prompt tokens found cached, as a share of all.
    pub reuse: f64,
    /// The same over what one LRU cache of the fleet's size finds, if requests come in this order.
    pub of_shared: f64,
    /// Time to the first token, in milliseconds.
    pub ttft_ms: Percentiles,
    /// How far off the router expected it, as a share of it: the median of all requests.
    pub ttft_error: f64,
    /// Requests a second that hold the objective.
    pub goodput: f64,
    /// Requests of the pod with most over the mean.
    pub max_over_mean: f64,
    /// The same of computed prompt tokens: the work that was left.
    pub work_max_over_mean: f64,
}

/// By nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are.
    pub p99: f64,
}

// === impl Score ===

impl Score {
    /// Adds up what came of all requests.
    pub fn of(policy: String, traffic: &Traffic, fleet: &Fleet, came: &[Came]) -> Self {
        let pairs = || traffic.requests.iter().zip(came);
        let prompt: usize = traffic.requests.iter().map(|request| request.prompt_tokens).sum();
        let cached: usize = came.iter().map(|came| came.cached_tokens).sum();
        let reuse = cached as f64 / prompt.max(1) as f64;
        let shared = shared_reuse(traffic, fleet, came);
        let end = came.iter().map(|came| came.last).max().unwrap_or_default();
        let good = pairs().filter(|(request, came)| came.holds(fleet.slo, request)).count();
        let per_pod = |of: &dyn Fn(&Request, &Came) -> usize| {
            let mut pods = vec![0_usize; fleet.pods];
            for (request, came) in pairs() {
                pods[came.pod] += of(request, came);
            }
            let (most, all) = (pods.iter().max(), pods.iter().sum::<usize>());
            most.map_or(0, |most| *most) as f64 * fleet.pods as f64 / all.max(1) as f64
        };
        Self {
            policy,
            reuse,
            of_shared: if shared > 0.0 { reuse / shared } else { 1.0 },
            ttft_ms: Percentiles::of(came.iter().map(Came::ttft)),
            ttft_error: median(came.iter().filter_map(Came::ttft_error)),
            goodput: good as f64 / end.as_secs_f64().max(f64::MIN_POSITIVE),
            max_over_mean: per_pod(&|_, _| 1),
            work_max_over_mean: per_pod(&|request, came| {
                request.prompt_tokens.saturating_sub(came.cached_tokens)
            }),
        }
    }
}

/// What one LRU cache as large as all pods' together finds, each request done before the next.
fn shared_reuse(traffic: &Traffic, fleet: &Fleet, came: &[Came]) -> f64 {
    let block = traffic.block_tokens;
    let mut cache = BlockCache::new(1, fleet.pods * fleet.engine.num_blocks);
    let mut order: Vec<usize> = (0..came.len()).collect();
    order.sort_by_key(|number| (came[*number].sent, *number));
    let (mut found, mut asked) = (0, 0);
    for request in order.into_iter().map(|number| &traffic.requests[number]) {
        let reusable = request.prompt_tokens.saturating_sub(1) / block;
        let names: Vec<u32> = request.blocks.iter().copied().chain([u32::MAX]).collect();
        let mut chain = cache.begin("", &names[..=reusable.min(request.blocks.len())]);
        found += chain.reused_blocks() * block;
        asked += request.prompt_tokens;
        let tokens = request.prompt_tokens + request.output_tokens;
        if cache.grow(&mut chain, tokens.div_ceil(block)) {
            cache.commit(&mut chain, &request.blocks[..(tokens / block).min(request.blocks.len())]);
        }
        cache.release(chain);
    }
    found as f64 / asked.max(1) as f64
}

// === impl Came ===

impl Came {
    /// Time to the first token.
    pub fn ttft(&self) -> Duration {
        self.first.saturating_sub(self.sent)
    }

    fn ttft_error(&self) -> Option<f64> {
        let ttft = self.ttft().as_secs_f64();
        let off = (self.expected.as_secs_f64() - ttft).abs();
        (!self.expected.is_zero() && ttft > 0.0).then(|| off / ttft)
    }

    fn holds(&self, slo: Slo, request: &Request) -> bool {
        let gaps = request.output_tokens.saturating_sub(1).max(1);
        let between = self.last.saturating_sub(self.first).as_secs_f64() / gaps as f64;
        self.ttft() <= slo.ttft && between <= slo.between.as_secs_f64()
    }
}

/// 0 of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

// === impl Percentiles ===

impl Percentiles {
    /// Of these times, in milliseconds.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.collect();
        times.sort_unstable();
        let rank = |percent: usize| {
            let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { p50: rank(50), p90: rank(90), p99: rank(99) }
    }
}
