//! Whether requests can be served, and what is not as it should be.

use std::collections::BTreeMap;
use std::sync::Arc;

use router::feed::kv_events::Trust;
use router::pool::{Endpoint, Health, Snapshot};
use serde::Serialize;
use tokio::time::Instant;

use crate::disagreements::{Claims, disagreements};
use crate::drain::Phase;
use crate::telemetry::reading::Reading;

/// Age in seconds from which the set of pods counts as old. The watch of the Kubernetes API is
/// renewed every 60 s; twice that has missed one.
const OLD_SECONDS: u64 = 120;

/// Pods that are named; of more, only their number is told.
const MAX_NAMED: usize = 16;

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
    /// Judges what the router knows.
    #[must_use]
    pub fn of(reading: &Reading, phase: Phase, now: Instant) -> Self {
        let reasons: Vec<_> = reasons(&reading.snapshot, phase).collect();
        Self { ready: reasons.is_empty(), reasons, degraded: degraded(reading, now) }
    }
}

/// Why requests should not be sent here.
pub(crate) fn reasons(snapshot: &Snapshot, phase: Phase) -> impl Iterator<Item = &'static str> {
    let reasons = [
        (phase != Phase::Serving, "draining"),
        (snapshot.synced_at.is_none(), "not_synced"),
        (snapshot.answering().next().is_none(), "no_ready_pod"),
    ];
    reasons.into_iter().filter_map(|(holds, reason)| holds.then_some(reason))
}

fn degraded(reading: &Reading, now: Instant) -> Vec<String> {
    let snapshot = &reading.snapshot;
    let mut degraded = Vec::new();
    let wrong = snapshot.endpoints.iter().filter_map(|endpoint| complaint(endpoint));
    degraded.extend(wrong.take(MAX_NAMED));
    let more = snapshot.endpoints.iter().filter(|it| complaint(it).is_some()).skip(MAX_NAMED);
    match more.count() {
        0 => {}
        more => degraded.push(format!("and {more} more pods")),
    }
    degraded.extend(kv_trouble(snapshot));
    degraded.extend(other_tokens(snapshot));
    let pods: Vec<_> =
        snapshot.endpoints.iter().map(|endpoint| Claims::from(&**endpoint)).collect();
    degraded.extend(disagreements(&pods, &reading.tokenizers).iter().map(ToString::to_string));
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

/// Pods that tell what they hold and are not fully believed. One that tells nothing is not degraded:
/// it was never asked to.
fn kv_trouble(snapshot: &Snapshot) -> Vec<String> {
    let mut pods = BTreeMap::<_, usize>::new();
    for endpoint in &snapshot.endpoints {
        let trust = endpoint.kv_events.trust();
        if !matches!(trust, Trust::Approximate | Trust::Exact) {
            *pods.entry((trust.word(), trust.doubt())).or_default() += 1;
        }
    }
    let say = |((word, doubt), count): ((&str, Option<&str>), usize)| {
        let why = doubt.map(|doubt| format!(" ({doubt})")).unwrap_or_default();
        format!("KV events of {count} of {} pods: {word}{why}", snapshot.endpoints.len())
    };
    pods.into_iter().map(say).collect()
}

/// Pods that have what is asked for, tell so, and are never recognized.
fn other_tokens(snapshot: &Snapshot) -> Option<String> {
    let is_other = |it: &&Arc<Endpoint>| it.kv_events.report().predictions.are_of_other_tokens();
    let others: Vec<_> = snapshot.endpoints.iter().filter(is_other).collect();
    let first = others.first()?;
    Some(format!(
        "{} and {} more find prompts cached that we never know of: is the tokenizer theirs? `hearth doctor` \
         holds our tokens against the pods'",
        first.pod.addr,
        others.len() - 1
    ))
}

/// What is wrong with a pod, and why.
fn complaint(endpoint: &Endpoint) -> Option<String> {
    if endpoint.is_cordoned {
        return Some(format!("{} is cordoned", endpoint.pod.addr));
    }
    let what = match endpoint.health {
        Health::Unproven => "is not proven yet",
        Health::Ejected => "is ejected",
        Health::Ready if endpoint.record.kept_by_share => {
            "fails requests and is kept by max_ejected_share"
        }
        Health::Ready => return None,
    };
    let addr = endpoint.pod.addr;
    let reason = endpoint.record.last_failure.as_ref().map(|failure| &failure.reason);
    Some(match reason {
        Some(reason) => format!("{addr} {what}: {reason}"),
        None => format!("{addr} {what}"),
    })
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
            let reading = Reading { snapshot: snapshot.into(), ..reading() };
            let readiness = Readiness::of(&reading, phase, now);
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
        let mut reading = Reading { snapshot: snapshot.into(), ..reading() };
        reading.tokenizers[0].model = "tini".into();
        let readiness = Readiness::of(&reading, Phase::Serving, later);
        assert!(readiness.ready);
        let absent = |model: &str| {
            format!(
                "the tokenizer of model {model}, hf:owner/tiny, is not here: tokenizer.json: no route to \
                 host; until then its prompts are matched by their bytes and trust stays approximate; is \
                 the name right, does the repository want a token (HF_TOKEN), and can it be reached \
                 (HF_ENDPOINT)? Or set `tokenizers: {{{model}: DIR}}`"
            )
        };
        assert_eq!(
            readiness.degraded,
            [
                "10.0.0.3:8000 is not proven yet: cannot connect: refused",
                &absent("tini"),
                "a tokenizer for model tini, which no pod lists; they list tiny; \
                 set `tokenizers` for the name that pods list (--served-model-name)",
                "the set of pods is 130 s old",
                "discovery names no pod; the ones that answer are kept",
                "discovery: 403 Forbidden",
            ]
        );
    }
}
