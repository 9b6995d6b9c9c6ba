//! Whether requests can be served, and what is not as it should be.

use router::pool::{Health, Snapshot};
use serde::Serialize;
use tokio::time::Instant;

use crate::drain::Phase;

/// Age in seconds from which the set of pods counts as old. The watch of the Kubernetes API is
/// renewed every 60 s; twice that has missed one.
const OLD_SECONDS: u64 = 120;

/// What `/readyz` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// Why not: `draining`, `not_synced`, `no_ready_pod`.
    pub reasons: Vec<&'static str>,
    /// What is wrong and does not stop the service.
    pub degraded: Vec<String>,
}

// === impl Readiness ===

impl Readiness {
    /// Judges a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot, phase: Phase, now: Instant) -> Self {
        let reasons: Vec<_> = [
            (phase != Phase::Serving, "draining"),
            (snapshot.synced_at.is_none(), "not_synced"),
            (!snapshot.endpoints.iter().any(|it| it.can_answer()), "no_ready_pod"),
        ]
        .into_iter()
        .filter_map(|(holds, reason)| holds.then_some(reason))
        .collect();
        Self { ready: reasons.is_empty(), reasons, degraded: degraded(snapshot, now) }
    }
}

fn degraded(snapshot: &Snapshot, now: Instant) -> Vec<String> {
    let mut degraded = Vec::new();
    for (health, what) in [(Health::Unproven, "not proven yet"), (Health::Ejected, "ejected")] {
        match count(snapshot, health) {
            0 => {}
            pods => degraded.push(format!("{pods} of {} pods {what}", snapshot.endpoints.len())),
        }
    }
    let age = snapshot.synced_at.map(|at| now.saturating_duration_since(at).as_secs());
    if let Some(seconds) = age.filter(|seconds| *seconds >= OLD_SECONDS) {
        degraded.push(format!("the set of pods is {seconds} s old"));
    }
    if snapshot.kept_because_empty {
        degraded.push("discovery names no pod; the ones that answer are kept".to_owned());
    }
    if let Some(error) = &snapshot.discovery_error {
        degraded.push(format!("discovery: {error}"));
    }
    degraded
}

fn count(snapshot: &Snapshot, health: Health) -> usize {
    snapshot.endpoints.iter().filter(|endpoint| endpoint.health == health).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::reading::tests::reading;

    #[test]
    fn each_reason_makes_it_unready() {
        let now = Instant::now();
        let pods = reading().snapshot.endpoints.clone();
        let snapshot = |pods: &[_], synced_at| Snapshot {
            endpoints: pods.to_vec(),
            synced_at,
            ..Snapshot::default()
        };
        let reasons = |snapshot: Snapshot, phase| {
            let readiness = Readiness::of(&snapshot, phase, now);
            assert_eq!(readiness.ready, readiness.reasons.is_empty());
            readiness.reasons
        };
        let nothing: [&str; 0] = [];
        assert_eq!(reasons(snapshot(&pods, Some(now)), Phase::Serving), nothing);
        assert_eq!(reasons(snapshot(&pods, Some(now)), Phase::Lingering), ["draining"]);
        assert_eq!(reasons(snapshot(&pods, None), Phase::Serving), ["not_synced"]);
        assert_eq!(reasons(snapshot(&pods[2..], Some(now)), Phase::Serving), ["no_ready_pod"]);
        let all = ["draining", "not_synced", "no_ready_pod"];
        assert_eq!(reasons(snapshot(&[], None), Phase::Closing), all);
    }

    #[test]
    fn what_is_degraded_is_said_and_does_not_make_it_unready() {
        let now = Instant::now();
        let snapshot = Snapshot {
            endpoints: reading().snapshot.endpoints.clone(),
            synced_at: Some(now),
            kept_because_empty: true,
            discovery_error: Some("403 Forbidden".into()),
            ..Snapshot::default()
        };
        let later = now + Duration::from_secs(130);
        let readiness = Readiness::of(&snapshot, Phase::Serving, later);
        assert!(readiness.ready);
        assert_eq!(
            readiness.degraded,
            [
                "1 of 3 pods not proven yet",
                "the set of pods is 130 s old",
                "discovery names no pod; the ones that answer are kept",
                "discovery: 403 Forbidden",
            ]
        );
    }
}
