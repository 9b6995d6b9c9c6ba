//! What the cache-hit job can score at best, and what a router with no policy scores.
//!
//! The job sends one prompt again and again, so its hit rate is mostly arithmetic: a result means
//! something only beside these two numbers. An engine reuses whole blocks and always computes the
//! last token itself, so of P tokens it can reuse `floor((P - 1) / block) * block` (vLLM:
//! `max_cache_hit_length = num_tokens - 1`).

use crate::client::Counters;

/// Tokens that every chat prompt begins with under the Llama-3 template: the dated system block
/// (25) and the user's header (5). A health check warms so much of the measured prompt, no more.
pub const CHAT_PREFIX_TOKENS: u64 = 30;

/// The job's traffic, as far as the cache is concerned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Traffic {
    /// Requests sent before the counters' baseline.
    pub warmups: u64,
    /// Prompt tokens of the health check that runs between baseline and measured requests.
    pub health_tokens: Option<u64>,
    /// Measured requests.
    pub requests: u64,
    /// Prompt tokens of each.
    pub prompt_tokens: u64,
    /// What the pods held before this traffic.
    pub held: HeldBefore,
}

/// Cached tokens that this traffic's first answers told: more than it can have left there itself
/// is what other traffic did, be it before or beside it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HeldBefore {
    /// Of the health check.
    pub health: u64,
    /// Of the first measured request.
    pub prompt: u64,
}

/// The engines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Engines {
    /// Pods, all empty at the start.
    pub pods: u64,
    /// Tokens of a KV block.
    pub block_size: u64,
}

/// The two bounds, each as the counters' deltas would show it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expectation {
    /// Every request on the pod that holds most of it.
    pub ceiling: Counters,
    /// Every request on the next pod, all of which begin empty.
    pub round_robin: Counters,
    /// Whether the pods began empty, as far as this traffic can tell.
    pub is_fresh: bool,
}

/// Computes both bounds for pods that forget nothing.
pub fn expectation(traffic: Traffic, engines: Engines) -> Expectation {
    let pods = engines.pods.max(1);
    let fresh = Traffic { held: HeldBefore::default(), ..traffic };
    let ceiling = play(traffic, engines, |_index| 0);
    Expectation {
        ceiling,
        round_robin: play(fresh, engines, |index| index % pods),
        is_fresh: ceiling == play(fresh, engines, |_index| 0),
    }
}

/// What one pod holds: the longest of what it has computed.
#[derive(Clone, Copy, Default)]
struct Held {
    prompt: bool,
    health: bool,
}

fn play(traffic: Traffic, engines: Engines, pod_of: impl Fn(u64) -> u64) -> Counters {
    let block = engines.block_size.max(1);
    let reusable = |tokens: u64, held: u64| tokens.saturating_sub(1).min(held) / block * block;
    let mut held = std::collections::BTreeMap::<u64, Held>::new();
    let mut counted = Counters::default();
    for index in 0..traffic.warmups {
        held.entry(pod_of(index)).or_default().prompt = true;
    }
    let mut next = traffic.warmups;
    if let Some(tokens) = traffic.health_tokens {
        let pod = held.entry(pod_of(next)).or_default();
        let warm = if pod.prompt { CHAT_PREFIX_TOKENS } else { 0 };
        let hits = reusable(tokens, warm).max(traffic.held.health);
        counted = counted.plus(Counters { queries: tokens, hits });
        pod.health = true;
        next += 1;
    }
    for index in next..next + traffic.requests {
        let tokens = traffic.prompt_tokens;
        let pod = held.entry(pod_of(index)).or_default();
        let warm = match *pod {
            Held { prompt: true, .. } => tokens,
            Held { health: true, .. } => CHAT_PREFIX_TOKENS,
            Held { .. } => 0,
        };
        let held = if index == next { traffic.held.prompt } else { 0 };
        counted =
            counted.plus(Counters { queries: tokens, hits: reusable(tokens, warm).max(held) });
        pod.prompt = true;
    }
    counted
}

#[cfg(test)]
mod tests;
