//! Open-loop arrival times: when the n-th request is due, whatever happened to those before it.

use std::time::Duration;

use super::mix;

/// An arrival process. Every gap is a pure function of the process and the request's index.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// One request every `1 / rate` seconds, the first at once.
    Constant {
        /// Requests per second.
        rate: f64,
    },
    /// Independent users: exponential gaps of mean `1 / rate` seconds.
    Poisson {
        /// Requests per second, on average.
        rate: f64,
        /// Seed of the gaps.
        seed: u64,
    },
}

// === impl Arrivals ===

impl Arrivals {
    /// Offsets from the start, without end.
    pub fn offsets(self) -> impl Iterator<Item = Duration> + Send {
        let mut elapsed_s = 0.0;
        (0u64..).map(move |index| {
            elapsed_s += self.gap_s(index);
            Duration::try_from_secs_f64(elapsed_s).unwrap_or(Duration::MAX)
        })
    }

    /// Seconds between request `index` and the one before it.
    fn gap_s(self, index: u64) -> f64 {
        match self {
            Self::Constant { .. } if index == 0 => 0.0,
            Self::Constant { rate } => 1.0 / rate,
            // Inverse transform: -ln(U) / rate for U uniform in (0, 1].
            Self::Poisson { rate, seed } => -uniform(seed, index).ln() / rate,
        }
    }
}

/// A number in (0, 1] for each (seed, index). The upper 53 bits fill a double's mantissa.
fn uniform(seed: u64, index: u64) -> f64 {
    ((mix([seed, index]) >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
