//! What stands behind the gateways, and what they get wrong about it.

use std::time::Duration;

use crate::simulator::EngineConfig;

/// Pods, and the gateways in front of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Pods, all alike but for `slow`.
    pub pods: usize,
    /// What each is like.
    pub engine: EngineConfig,
    /// How many times longer the first pod takes for everything.
    pub slow: f64,
    /// Gateways; each request comes to any of them.
    pub gateways: usize,
    /// What the gateways believe of the pods' rates.
    pub rates: Rates,
    /// What is good enough.
    pub slo: Slo,
}

/// How wrong the rates are that were learned.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rates {
    /// As learned.
    #[default]
    Learned,
    /// All are so many times too high.
    Off(f64),
    /// Every second pod's is so many times too high, the others' as much too low.
    Mixed(f64),
}

/// An answer is good when both hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slo {
    /// Time to the first token.
    pub ttft: Duration,
    /// Mean time between tokens.
    pub between: Duration,
}

// === impl Fleet ===

impl Default for Fleet {
    /// Eight pods of a big model: 15,000 prompt tokens a second, a million tokens of cache each.
    fn default() -> Self {
        let engine = EngineConfig {
            block_size: 512,
            num_blocks: 2_000,
            prefill_tokens_per_s: 15_000.0,
            decode_ms: 15.0,
            decode_ms_per_seq: 0.2,
            ..EngineConfig::default()
        };
        Self {
            pods: 8,
            engine,
            slow: 1.0,
            gateways: 1,
            rates: Rates::Learned,
            slo: Slo { ttft: Duration::from_secs(2), between: Duration::from_millis(60) },
        }
    }
}

impl Fleet {
    /// Pod `number`.
    pub(super) fn engine(&self, number: usize) -> EngineConfig {
        let factor = if number == 0 { self.slow } else { 1.0 };
        EngineConfig {
            prefill_tokens_per_s: self.engine.prefill_tokens_per_s / factor,
            decode_ms: self.engine.decode_ms * factor,
            decode_ms_per_seq: self.engine.decode_ms_per_seq * factor,
            ..self.engine.clone()
        }
    }
}

// === impl Rates ===

impl Rates {
    /// What the rate of the pod at `position` is multiplied by.
    pub(super) fn factor(self, position: usize) -> f64 {
        match self {
            Self::Learned => 1.0,
            Self::Off(factor) => factor,
            Self::Mixed(factor) if position.is_multiple_of(2) => factor,
            Self::Mixed(factor) => factor.recip(),
        }
    }
}
