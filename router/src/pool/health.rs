//! When a pod gets traffic: a state machine fed with outcomes, probes and instants.

#[cfg(test)]
mod tests;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Health, Out, Outcome};
use crate::backoff::doubled;
use crate::units::HumanDuration;

/// When a pod that fails is taken out of rotation, and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSettings {
    /// So many failed requests in a row take a pod out. A client's mistake (4xx) and a busy engine
    /// (429, 503) are no failures.
    pub failed_requests: u32,
    /// So many failed probes in a row take a pod out. One is enough if the connection is refused,
    /// if the engine says that it is dead, or if a request has failed since the last good probe.
    pub failed_probes: u32,
    /// Failed requests alone take out at most this share of the pods that answer probes (0 to 1):
    /// if all pods fail at once, the fault is probably not theirs.
    pub max_ejected_share: f64,
    /// A pod that failed requests stays out at least so long, even if it answers probes; doubled
    /// with every time in a row.
    pub ejected_min: HumanDuration,
    /// Bound of that doubling.
    pub ejected_max: HumanDuration,
    /// A pod whose engine has requests and has computed nothing for so long is taken out, however
    /// healthy it says it is: asleep, paused and stuck engines do. Longer than the longest step.
    pub still_after: HumanDuration,
}

/// The health of one pod.
#[derive(Clone, Debug)]
pub(super) struct PodHealth {
    state: State,
    /// Failed requests since one was answered.
    failed_requests: u32,
    /// Failed probes since a good one or an answered request.
    failed_probes: u32,
    /// Since when no probe was good. Who is mute for longer than `ejected_max` is gone.
    mute_since: Option<Instant>,
    /// A request has failed, and neither a good probe nor an answer has come since.
    doubted: bool,
    /// Ejections by requests that came one soon after another.
    ejections: u32,
    /// When a probe is due that may put it back, other than at its own turn.
    half_open_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unproven,
    Ready {
        since: Instant,
    },
    /// `until` is when a good probe may bring it back.
    Ejected {
        until: Instant,
        by: Out,
    },
}

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Good,
    /// Its engine has even made a token.
    Generated,
    /// Something went wrong that may pass: a time-out, a strange answer.
    Doubtful,
    /// Nobody listens there, or the engine says that it is dead.
    Dead,
}

// === impl HealthSettings ===

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            failed_requests: 3,
            failed_probes: 3,
            max_ejected_share: 0.5,
            ejected_min: HumanDuration::from_secs(1),
            ejected_max: HumanDuration::from_secs(30),
            still_after: HumanDuration::from_secs(10),
        }
    }
}

impl HealthSettings {
    fn ejected_for(&self, ejections: u32) -> Duration {
        doubled(self.ejected_min.get(), self.ejected_max.get(), ejections.saturating_sub(1))
    }
}

// === impl PodHealth ===

impl PodHealth {
    pub(super) fn new() -> Self {
        Self {
            state: State::Unproven,
            failed_requests: 0,
            failed_probes: 0,
            mute_since: None,
            doubted: false,
            ejections: 0,
            half_open_at: None,
        }
    }

    pub(super) fn health(&self) -> Health {
        match self.state {
            State::Unproven => Health::Unproven,
            State::Ready { .. } => Health::Ready,
            State::Ejected { .. } => Health::Ejected,
        }
    }

    /// What has taken it out.
    pub(super) fn out(&self) -> Option<Out> {
        match self.state {
            State::Ejected { by, .. } => Some(by),
            State::Unproven | State::Ready { .. } => None,
        }
    }

    /// When it is to be probed since it may come back then. Its probe's own turn may be seconds later:
    /// while it is out nobody doubts it.
    pub(super) fn half_open_at(&self) -> Option<Instant> {
        self.half_open_at
    }

    /// Whether that is now; said once.
    pub(super) fn half_opens(&mut self, now: Instant) -> bool {
        self.half_open_at.take_if(|at| now >= *at).is_some()
    }

    /// Whether its engine has to make a token before it may come back: its other answers prove nothing.
    pub(super) fn owes_token(&self) -> bool {
        self.out() == Some(Out::Standstill)
    }

    /// Failed requests since one was answered, and failed probes since a good one.
    pub(super) fn failures(&self) -> (u32, u32) {
        (self.failed_requests, self.failed_probes)
    }

    /// Whether it would be out for failing requests if more pods might be.
    pub(super) fn is_kept_by_share(&self, settings: &HealthSettings) -> bool {
        matches!(self.state, State::Ready { .. })
            && self.failed_requests >= settings.failed_requests.max(1)
    }

    /// Whether an answered request would be news.
    pub(super) fn is_suspect(&self) -> bool {
        matches!(self.state, State::Ready { .. })
            && (self.failed_requests > 0 || self.failed_probes > 0)
    }

    /// What a probe found.
    pub(super) fn probed(&mut self, probe: Probe, now: Instant, settings: &HealthSettings) {
        if matches!(probe, Probe::Good | Probe::Generated) {
            (self.failed_probes, self.doubted, self.mute_since) = (0, false, None);
            let is_proof = probe == Probe::Generated || !self.owes_token();
            match self.state {
                State::Unproven => self.state = State::Ready { since: now },
                State::Ejected { until, .. } if is_proof && now >= until => {
                    self.failed_requests = 0;
                    self.state = State::Ready { since: now };
                }
                State::Ejected { .. } | State::Ready { .. } => {}
            }
            return;
        }
        self.failed_probes = self.failed_probes.saturating_add(1);
        let enough = probe == Probe::Dead
            || self.doubted
            || self.failed_probes >= settings.failed_probes.max(1);
        let mute_since = *self.mute_since.get_or_insert(now);
        let is_gone = now.saturating_duration_since(mute_since) >= settings.ejected_max.get();
        let by = if probe == Probe::Dead || is_gone { Out::Gone } else { Out::Mute };
        match self.state {
            State::Ready { .. } if enough => {
                // The next good probe may bring it back at once: nothing else speaks against it.
                self.state = State::Ejected { until: now, by };
            }
            State::Ejected { until, by: Out::Requests } => {
                self.state = State::Ejected { until, by };
            }
            // A process that is gone owes nothing any more: what comes back is another one.
            State::Ejected { until, by: Out::Standstill | Out::Mute } if by == Out::Gone => {
                self.state = State::Ejected { until, by };
            }
            State::Ejected { .. } | State::Ready { .. } | State::Unproven => {}
        }
    }

    /// Its engine has requests and has computed nothing for too long.
    pub(super) fn stands_still(&mut self, now: Instant, settings: &HealthSettings) {
        if let State::Ready { since } = self.state {
            self.eject(since, (now, Out::Standstill), settings);
        }
    }

    /// What a request saw. `may_eject` says whether requests alone may still take a pod out.
    /// Returns whether a probe should look at once.
    pub(super) fn saw(
        &mut self,
        outcome: Outcome,
        now: Instant,
        may_eject: bool,
        settings: &HealthSettings,
    ) -> bool {
        match outcome {
            Outcome::Answered | Outcome::Busy => {
                (self.failed_requests, self.failed_probes, self.doubted) = (0, 0, false);
                false
            }
            Outcome::Silent => matches!(self.state, State::Ready { .. }),
            Outcome::Failed | Outcome::Refused | Outcome::Stalled => {
                self.failed_requests = self.failed_requests.saturating_add(1);
                let State::Ready { since } = self.state else { return false };
                self.doubted = true;
                if self.failed_requests >= settings.failed_requests.max(1) && may_eject {
                    let stalled = outcome == Outcome::Stalled;
                    let by = if stalled { Out::Standstill } else { Out::Requests };
                    self.eject(since, (now, by), settings);
                }
                true
            }
        }
    }

    fn eject(
        &mut self,
        ready_since: Instant,
        (now, by): (Instant, Out),
        settings: &HealthSettings,
    ) {
        let was_well = now.saturating_duration_since(ready_since) > settings.ejected_max.get();
        self.ejections = if was_well { 1 } else { self.ejections.saturating_add(1) };
        let until = now + settings.ejected_for(self.ejections);
        self.half_open_at = Some(until);
        self.state = State::Ejected { until, by };
    }
}
