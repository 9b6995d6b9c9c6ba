//! The knobs of the pool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HealthSettings;
use crate::feed::{EngineMetricsSettings, ProbeSettings};
use crate::units::HumanDuration;

/// How pods are proven, watched and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSettings {
    /// The probe that a pod must pass before it gets traffic, and repeats for life.
    pub probe: ProbeSettings,
    /// When a pod that fails requests or probes is taken out, and for how long.
    pub health: HealthSettings,
    /// The polling of the engines' own metrics.
    pub engine_metrics: EngineMetricsSettings,
    /// How long the known pods are kept when discovery suddenly names none while they still answer
    /// probes: a wrong selector or lost rights look exactly like that.
    pub keep_when_empty: HumanDuration,
}

// === impl PoolSettings ===

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            probe: ProbeSettings::default(),
            health: HealthSettings::default(),
            engine_metrics: EngineMetricsSettings::default(),
            // Long enough for a person to see the warning and undo the mistake.
            keep_when_empty: HumanDuration::from_secs(15 * 60),
        }
    }
}
