//! When an answer that says nothing is given up. Pure: what is seen of the pod, and instants.

#[cfg(test)]
mod tests;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::pool::{Endpoint, Out};
use crate::units::HumanDuration;

/// When an answer that says nothing is given up, and asked of another pod.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SilenceSettings {
    /// A pod is looked at (probed) when an answer was silent for so long; if nobody listens there any
    /// more, the answer moves at once. vLLM that got a SIGTERM goes just so: its streams freeze.
    /// A pod that only does not answer in time may have no time for probes: it has `stall_floor`.
    pub doubt_after: HumanDuration,
    /// A stream that was silent for so many times what the pod's streams take between two tokens, and
    /// for at least `stall_floor`, has stalled, whatever probes say.
    pub stall_paces: f64,
    /// See `stall_paces`. Where nothing has come yet, an answer has stalled when the engine says for so
    /// long that it has nothing to do.
    pub stall_floor: HumanDuration,
    /// Answers of a pod that terminates move to others so long before its grace is over, or when half
    /// of it is.
    pub leave_before: HumanDuration,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ear {
    /// The first token, or a plain answer: it begins anew elsewhere. How long it may take, nobody
    /// knows.
    Beginning,
    /// The same at the last pod that may be tried: patience costs less than an error.
    LastBeginning,
    /// Blocks of a pod that has prefilled: what its engine does now says nothing of them.
    Handed,
    /// The next token of a stream that may go on elsewhere.
    Stream,
    /// The next token of a stream that can only go on where it is.
    BoundStream,
}

/// What is seen of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sight {
    /// Nobody listens there any more, or its engine is dead or stands still.
    pub is_gone: bool,
    /// It does not answer probes in time.
    pub is_mute: bool,
    /// Since when its engine says that it has nothing to do.
    pub idle_since: Option<Instant>,
    /// When it will be gone, and since when that is known.
    pub leaves: Option<(Instant, Instant)>,
    /// What its streams take between two tokens.
    pub pace: Option<Duration>,
}

/// What is to be done about a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To look again then.
    Wait(Instant),
    /// To ask for a probe, and to look again then.
    Doubt(Instant),
    /// To give it up.
    GiveUp(Why),
}

/// Why an answer is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The pod is gone, does not answer probes any more, or stands still.
    Out,
    /// The answer has stalled; nothing is known of the pod.
    Stalled,
    /// The pod terminates, and its time is nearly over. It may go on meanwhile.
    Leaving,
}

/// A silence that is doubted is looked into so often: this many times in `doubt_after`.
const LOOKS: u32 = 4;

// === impl SilenceSettings ===

impl Default for SilenceSettings {
    fn default() -> Self {
        Self {
            doubt_after: HumanDuration::from_secs(1),
            // A batch that fills up makes the pace ten times slower, a long prefill in between stops
            // it for a second or two.
            stall_paces: 50.0,
            stall_floor: HumanDuration::from_secs(10),
            leave_before: HumanDuration::from_secs(5),
        }
    }
}

impl SilenceSettings {
    /// What is to be done about an answer that last said something (or was asked for) at `heard`.
    #[must_use]
    pub fn judge(&self, ear: Ear, heard: Instant, sight: &Sight, now: Instant) -> Action {
        let silent = now.saturating_duration_since(heard);
        let (doubt, floor) = (self.doubt_after.get(), self.stall_floor.get());
        let leave_at = sight.leaves.filter(|_| ear != Ear::BoundStream).map(|(at, known)| {
            let grace = at.saturating_duration_since(known);
            at - self.leave_before.get().min(grace / 2)
        });
        if leave_at.is_some_and(|at| now >= at) {
            return Action::GiveUp(Why::Leaving);
        }
        let patience = if ear == Ear::BoundStream { floor.max(doubt) } else { doubt };
        // On a starved machine every pod looks mute: where there is nobody else, it is waited for.
        let may_go = matches!(ear, Ear::Beginning | Ear::Handed | Ear::Stream);
        let is_mute = sight.is_mute && may_go && silent >= floor.max(doubt);
        if is_mute || sight.is_gone && silent >= patience {
            return Action::GiveUp(Why::Out);
        }
        let has_stalled = match ear {
            Ear::Stream => silent >= self.stall(sight.pace),
            Ear::Beginning => {
                let idle = sight.idle_since.map(|since| now.saturating_duration_since(since));
                // Since it was asked, that is: what the engine did before says nothing.
                idle.is_some_and(|idle| idle.min(silent) >= floor)
            }
            Ear::LastBeginning | Ear::Handed | Ear::BoundStream => false,
        };
        if has_stalled {
            return Action::GiveUp(Why::Stalled);
        }
        let look = (doubt / LOOKS).max(Duration::from_millis(1));
        let sooner = |at: Instant| leave_at.map_or(at, |leave| at.min(leave));
        // A pod that begins to terminate has at least its grace: looked for once in `doubt_after`.
        if silent < doubt {
            return Action::Wait(sooner(heard + doubt));
        }
        Action::Doubt(sooner(now + look))
    }

    /// Whether it was us who stood still (a stopped process, a frozen machine) and not the pod: who
    /// meant to look at `meant` and looks so late has not read what was said meanwhile.
    #[must_use]
    pub fn overslept(&self, meant: Instant, now: Instant) -> bool {
        now.saturating_duration_since(meant) >= self.doubt_after.get()
    }

    /// How long a stream of this pace may be silent.
    fn stall(&self, pace: Option<Duration>) -> Duration {
        let paces = pace.unwrap_or_default().as_secs_f64() * self.stall_paces.max(1.0);
        let paces = Duration::try_from_secs_f64(paces).unwrap_or(Duration::MAX);
        paces.max(self.stall_floor.get())
    }
}

// === impl Sight ===

impl Sight {
    /// What is known of a pod; of one that is gone, that.
    #[must_use]
    pub fn of(endpoint: Option<&Endpoint>) -> Self {
        let Some(endpoint) = endpoint else { return Self { is_gone: true, ..Self::default() } };
        let record = &endpoint.record;
        Self {
            is_gone: matches!(record.out, Some(Out::Gone | Out::Standstill)),
            is_mute: record.out == Some(Out::Mute),
            idle_since: record.idle_since,
            leaves: record.leaves,
            pace: record.pace.get(),
        }
    }
}
