//! Whether another pod prefills for the pod that answers. Pure.
//!
//! Every pod `d` that could answer is weighed alone and with every prefill pod `p`, in the units of
//! the policy `warm`, milliseconds to the first token and what they cost others:
//!
//! ```text
//! alone = cost(d) + uncached(d) * r(d) * stall * running(d)     our prefill slows who decodes there
//! pair  = max(queued(d), queued(p) + uncached(p) * r(p) + transfer(uncached(d)))
//!       + uncached(p) * r(p) * waiting(p)                       and who will stand behind it there
//!       + what else cost(d) and cost(p) hold                    decode, eviction, balance, session
//! ```
//!
//! so a prefix counts wherever it is: on `p` it need not be computed, on `d` it need not be moved. On
//! a pod that only decodes at least one answer is taken to run: it is there to decode, and whoever
//! comes next is held up. `waiting` is how many a prefill pod has: by Little's law as many come while a
//! prompt stands in line as stand in it, and each of them waits for this one too. Without it a prompt
//! stood in line for 950 ms that would have taken 100 ms at home (two GPUs, 10 requests a second: an own
//! queue was a cost, what it did to others was none). `transfer` is learned (see [`transfer`]), of pods
//! at one place and of pods at two apart: between equals, the nearer pair wins.

pub mod transfer;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connector::ConnectorName;
use crate::policy::Candidate;
use crate::pool::Role;
use crate::units::HumanDuration;
use transfer::{Rate, Rates};

/// Prefill and decode on different pods: where some pods have the role `prefill`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSettings {
    /// How pods hand over KV blocks: `nixl`, `nixl-push`, `mooncake`, `sglang`, `offloading`,
    /// `shared-storage`, or `off`. What the pods were started with.
    pub connector: ConnectorName,
    /// Fewer uncached prompt tokens than this are always computed where the answer is. null: as many as
    /// the pod computes in twice the time that a transfer takes at least, and never fewer than 64.
    pub min_uncached_tokens: Option<u32>,
    /// How many milliseconds each answer that is under way on a pod loses per millisecond that a
    /// prompt is computed there. On a `decode` pod at least one is taken to be under way. 0: a prefill
    /// slows nobody, so only a queue is a reason to split.
    pub stall: f64,
    /// How long a prefill pod keeps the blocks of a prompt that nobody has read yet (vLLM's
    /// `kv_lease_duration`). The decode pod is asked within two thirds of it, else the prefill is
    /// done again: what is read later may be another prompt's, and nobody would notice.
    pub lease: HumanDuration,
    /// How long a prefill pod has for its answer; then another pod prefills, or the one that answers.
    pub prefill_timeout: HumanDuration,
    /// How long a decode pod has for its first bytes, beyond what is booked before; then the prompt is
    /// computed by the pod that answers.
    pub transfer_timeout: HumanDuration,
    /// The port on prefill pods that decode pods are told of. null: the connector's own, 8998 for
    /// `mooncake` and `sglang`, 7777 for `offloading`.
    pub port: Option<u16>,
}

/// What a request's split, or the lack of one, looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// `split`, or why not, in a word.
    pub verdict: &'static str,
    /// The pod that prefills.
    pub prefill: Option<SocketAddr>,
    /// What the best pair was weighed by, if there was one.
    pub terms: Option<SplitTerms>,
}

/// The best pair against the best pod alone, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SplitTerms {
    /// The prefill pod's booked work.
    pub queued_ms: f64,
    /// What the prefill pod computes, and what a first token takes there whatever the prompt.
    pub prefill_ms: f64,
    /// What is moved.
    pub transfer_ms: f64,
    /// What it costs those who will stand in line behind it on the prefill pod.
    pub behind_ms: f64,
    /// All that the pair costs.
    pub pair_ms: f64,
    /// What a prefill on the pod that answers costs those who decode there.
    pub stall_ms: f64,
    /// All that the pod alone costs.
    pub alone_ms: f64,
}

/// A pair of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Among the pods that answer.
    pub decode: usize,
    /// Among the pods that prefill.
    pub prefill: usize,
    /// What it was weighed by.
    pub terms: SplitTerms,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Two pods.
    Split(Pair),
    /// One pod: everywhere else fewer tokens are uncached than the floor.
    Short,
    /// One pod: no pair is better.
    NoGain(Pair),
}

/// NIXL's own `kv_recompute_threshold`: to move fewer tokens is not worth a message.
const LEAST_TOKENS: f64 = 64.0;

/// A prefill is worth a transfer from twice its fixed time on.
const LEAST_GAIN: f64 = 2.0;

// === impl SplitSettings ===

impl Default for SplitSettings {
    fn default() -> Self {
        Self {
            connector: ConnectorName::default(),
            min_uncached_tokens: None,
            // With chunked prefill a decode step takes as long as the chunk beside it: a stream loses
            // nearly all the time that the prefill takes.
            stall: 1.0,
            lease: HumanDuration::from_secs(30),
            prefill_timeout: HumanDuration::from_secs(60),
            // NIXL's handshake alone may take 5 s before it fails.
            transfer_timeout: HumanDuration::from_secs(20),
            port: None,
        }
    }
}

impl SplitSettings {
    /// The port on prefill pods that decode pods are told of; 0 where they need none.
    #[must_use]
    pub fn connector_port(&self) -> u16 {
        self.port.or(self.connector.default_port()).unwrap_or(0)
    }

    fn floor_tokens(&self, rate: Rate, pod: &Candidate) -> f64 {
        let learned = LEAST_GAIN * rate.fixed_ms / pod.load.prefill_ms_per_token;
        self.min_uncached_tokens.map_or_else(|| learned.max(LEAST_TOKENS), f64::from)
    }
}

// === impl Split ===

impl Split {
    /// The word for a request that is split.
    pub const SPLIT: &'static str = "split";

    /// One pod does it all, for this reason.
    #[must_use]
    pub fn whole(verdict: &'static str) -> Self {
        Self { verdict, prefill: None, terms: None }
    }
}

/// Weighs every pair against `alone`, the row that the policy picked. Where the policy has no costs
/// (`has_costs`), the pod that answers is the policy's choice.
#[must_use]
pub fn weigh<'a>(
    settings: &SplitSettings,
    (rates, place): (Rates, impl Fn(&Candidate) -> Option<&'a str>),
    (decode, role): (&[Candidate], impl Fn(&Candidate) -> Role),
    (alone, has_costs): (usize, bool),
    prefill: &[Candidate],
) -> Verdict {
    let chosen = &decode[alone];
    let at_least = if role(chosen) == Role::Decode { 1 } else { 0 };
    // Who waits for another pod's prefill decodes nothing yet: counted, each split would make the next
    // one likelier (on a real pair at 5 requests/s, 9 of 30 splits came of that).
    let decoding = chosen.load.requests.saturating_sub(chosen.load.awaiting);
    let running = f64::from(decoding.max(at_least));
    let stall_ms = settings.stall * running * uncached_ms(chosen);
    let alone_ms = chosen.ttft_ms() + other(chosen) + stall_ms;
    let mut best: Option<Pair> = None;
    for (row, pod) in decode.iter().enumerate() {
        let is_short = f64::from(pod.uncached_tokens) < settings.floor_tokens(rates.near, pod);
        if is_short || (!has_costs && row != alone) {
            continue;
        }
        let decode_other = other(pod);
        for (prefill_row, from) in prefill.iter().enumerate() {
            let transfer_ms = rates.between(place(pod), place(from)).ms(pod.uncached_tokens);
            let arrives_ms = from.ttft_ms() + transfer_ms;
            let behind_ms = uncached_ms(from) * f64::from(from.load.requests);
            let pair_ms =
                arrives_ms.max(pod.load.queued_ms()) + behind_ms + decode_other + other(from);
            if best.is_none_or(|best| pair_ms < best.terms.pair_ms) {
                let terms = SplitTerms {
                    queued_ms: from.load.queued_ms(),
                    prefill_ms: uncached_ms(from) + from.load.overhead_ms,
                    transfer_ms,
                    behind_ms,
                    pair_ms,
                    stall_ms,
                    alone_ms,
                };
                best = Some(Pair { decode: row, prefill: prefill_row, terms });
            }
        }
    }
    match best {
        None => Verdict::Short,
        Some(pair) if pair.terms.pair_ms < alone_ms => Verdict::Split(pair),
        Some(pair) => Verdict::NoGain(pair),
    }
}

fn uncached_ms(pod: &Candidate) -> f64 {
    f64::from(pod.uncached_tokens) * pod.load.prefill_ms_per_token
}

/// What a pod costs beyond the time to the first token.
fn other(pod: &Candidate) -> f64 {
    pod.terms.total() - pod.terms.ttft_ms()
}
