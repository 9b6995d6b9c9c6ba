//! When a first token is so late that a second pod is asked for it. Pure.
//!
//! Nobody knows how long a wait will be that is longer than predicted; the best guess is that it lasts
//! as long again. So a second pod is expected to win once the first is late by as much as the second
//! would take: what was waited for in vain has then cost as much as a new beginning, and never much
//! more than twice of what the better of both would have taken is lost.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::units::HumanDuration;

/// First-token rescue: a stream whose first token is late is asked of a second pod as well, the first
/// to speak answers, and the other is closed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RescueSettings {
    /// The share of streams, of the last 10 s, that may be asked of a second pod. 0: none.
    pub budget: f64,
    /// A first token is late that takes so many times what was predicted, at least.
    pub times: f64,
    /// And that comes so long after it was predicted, at least.
    pub floor: HumanDuration,
}

/// What was predicted of a first token when its pod was chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// From being sent there, in milliseconds: what is booked before it, and its own prefill.
    pub ttft_ms: f64,
    /// The same at the fastest of the other pods that could take it; none if there is none.
    pub elsewhere_ms: Option<f64>,
}

// === impl RescueSettings ===

impl Default for RescueSettings {
    fn default() -> Self {
        Self { budget: 0.05, times: 3.0, floor: HumanDuration::from_millis(500) }
    }
}

impl RescueSettings {
    /// How long after it was sent a request is to be asked of a pod that takes `elsewhere_ms`, if its
    /// first token was predicted in `ttft_ms`. None: never, as where it would be longer than anybody
    /// waits.
    #[must_use]
    pub fn late_after(&self, ttft_ms: f64, elsewhere_ms: f64) -> Option<Duration> {
        let floor_ms = self.floor.get().as_secs_f64() * 1e3;
        let late_ms = (ttft_ms + floor_ms.max(elsewhere_ms)).max(ttft_ms * self.times);
        Duration::try_from_secs_f64(late_ms / 1e3).ok()
    }

    /// When that is; none where no other pod could take it, or the budget is none.
    #[must_use]
    pub fn late_at(&self, sent: Instant, forecast: &Forecast) -> Option<Instant> {
        let elsewhere_ms = forecast.elsewhere_ms.filter(|_| self.budget > 0.0)?;
        sent.checked_add(self.late_after(forecast.ttft_ms, elsewhere_ms)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_token_is_late_when_a_new_beginning_costs_no_more_than_was_lost() {
        let settings = RescueSettings::default();
        for (ttft_ms, elsewhere_ms, late_ms, why) in [
            (20.0, 20.0, 520.0, "what is short is late by the floor"),
            (0.0, 0.0, 500.0, "and so is what was to take no time"),
            (100.0, 900.0, 1_000.0, "the second would have to compute what the first holds"),
            (1_000.0, 900.0, 3_000.0, "a long prompt may take so many times what was predicted"),
            (1_000.0, 5_000.0, 6_000.0, "a busy second pod is asked late"),
        ] {
            let late = settings.late_after(ttft_ms, elsewhere_ms).expect("a time");
            assert!((late.as_secs_f64() * 1e3 - late_ms).abs() < 0.01, "{late:?}: {why}");
        }
    }

    #[test]
    fn nobody_is_asked_where_nobody_could_answer_or_nothing_may_be_spent() {
        let (settings, sent) = (RescueSettings::default(), Instant::now());
        let alone = Forecast { ttft_ms: 20.0, elsewhere_ms: None };
        assert_eq!(settings.late_at(sent, &alone), None);
        let two = Forecast { elsewhere_ms: Some(20.0), ..alone };
        assert_eq!(settings.late_at(sent, &two), Some(sent + Duration::from_millis(520)));
        let off = RescueSettings { budget: 0.0, ..settings };
        assert_eq!(off.late_at(sent, &two), None);
        for strange in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(settings.late_after(strange, strange), None, "{strange}");
        }
    }
}
