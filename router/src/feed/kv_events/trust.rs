//! How far one publisher's story can be believed: a pure state machine.
//!
//! | State | Input | Becomes | And |
//! |---|---|---|---|
//! | approximate | connected, with replay | catching up | replay from 0 |
//! | approximate | a batch with number 0, or that clears | exact | apply |
//! | approximate | another batch | uncertain (late start) | apply |
//! | catching up | a live batch | – | hold |
//! | catching up | a replayed batch that is due | – | apply |
//! | catching up | the first replayed batch is not 0 | – (late start) | apply |
//! | catching up | a replayed batch after a hole | – (gap) | drop blocks, apply |
//! | catching up | the last known batch is not there any more, or another | – | drop blocks, replay from 0 |
//! | catching up | end of the replay | exact, or uncertain (what was found) | resubmit held ones |
//! | catching up | the replay failed | as it was, or uncertain | drop blocks if the process may be another |
//! | exact, uncertain | the batch that is due | same; a silence is explained: exact | apply |
//! | exact, uncertain | a batch applied before | same | ignore |
//! | exact, uncertain | a batch ahead, with replay | catching up | hold, replay from the last known |
//! | exact, uncertain | a batch ahead, not replayable | uncertain (gap) | drop blocks, apply |
//! | exact, uncertain | a batch of another process | catching up | drop blocks, hold, replay from 0 |
//! | any | a batch that clears | exact | apply |
//! | any | a batch that cannot be read | uncertain (gap) | drop blocks |
//! | exact, uncertain | disconnected | catching up | |
//! | catching up | connected, with replay | – | replay from the last known |
//! | any with blocks | connected, without replay | uncertain (gap) | drop blocks |
//! | exact | silent while the pod works | catching up, or uncertain (silent) | replay from the last known |
//! | exact | idle | catching up | replay from the last known |
//! | exact, uncertain | an answer found less than was told, with replay | catching up | replay from the last known |
//! | exact, uncertain | self-check failed | catching up, or uncertain (self-check) | drop blocks, replay from 0 |
//! | catching up | self-check failed, or an answer found less | – | |
//! | uncertain | reconciled | exact | |
//! | uncertain, replay had failed | retry | catching up | replay from 0 |
//! | exact, replay had failed | retry | – | it may be asked for again |
//!
//! Catching up is *retelling* where it is from nothing: what a history told so far was so long ago, and
//! is no prediction of what is there now.
//!
//! Blocks are dropped wherever batches are lost for good: they may have told of removals, and the
//! index must never say more than is so.

mod machine;
#[cfg(test)]
mod tests;

pub(crate) use machine::Machine;

use super::sequence::Mark;

/// How far the index can be believed of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The pod tells nothing: what is known is what was sent to it.
    #[default]
    Approximate,
    /// The pod tells, and what was missed is being asked for.
    CatchingUp,
    /// The pod tells its history from the beginning: what it told so far was so long ago.
    Retelling,
    /// Told without a break since its first block, since its cache was empty, or since the two were
    /// found to agree.
    Exact,
    /// Told, with something missing or wrong.
    Uncertain(Doubt),
}

/// What is missing or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Batches were lost and could not be had again.
    Gap,
    /// We came late, and the pod's history does not go back to its beginning: it holds more than
    /// we know.
    LateStart,
    /// The pod works, but says nothing.
    Silent,
    /// Its answers did not agree with what we believed.
    SelfCheck,
}

/// Something that happened to a publisher's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    /// The stream is open.
    Connected,
    /// The stream has broken off.
    Disconnected,
    /// A batch on the stream.
    Live(Arrival),
    /// A batch from the history that was asked for.
    Replayed(Arrival),
    /// The history is told.
    ReplayEnded,
    /// The history could not be had.
    ReplayFailed,
    /// The engine has filled blocks and has not said so.
    Silent,
    /// Nothing was heard for a while.
    Idle,
    /// An answer was over-predicted, and nothing that was told since explains it.
    Overpredicted,
    /// So did several in a row.
    SelfCheckFailed,
    /// What we believe was found to agree.
    Reconciled,
    /// Time to try again what failed.
    Retry,
}

/// What the machine must know of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) mark: Mark,
    /// It says that the cache is empty.
    pub(crate) clears: bool,
    /// It can be read.
    pub(crate) readable: bool,
}

/// What becomes of the batch that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// There is none, or it was applied before, or it says nothing.
    #[default]
    Ignore,
    /// Its events happen now.
    Apply,
    /// It waits and comes in again when the replay has ended.
    Hold,
}

/// What to do, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Everything known of the publisher is forgotten.
    pub(crate) drop_blocks: bool,
    /// What becomes of the batch.
    pub(crate) batch: Fate,
    /// The history from this number on is asked for; a replay that runs is given up.
    pub(crate) replay_from: Option<u64>,
}

// === impl Trust ===

impl Trust {
    /// Whether an answer can confirm or refute it: it speaks of now, and the pod's own events say it.
    #[must_use]
    pub fn is_testable(self) -> bool {
        matches!(self, Self::Exact | Self::Uncertain(_))
    }

    /// The state's word, without its reason: for headers, labels and logs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Approximate => "approximate",
            Self::CatchingUp | Self::Retelling => "catching-up",
            Self::Exact => "exact",
            Self::Uncertain(_) => "uncertain",
        }
    }

    /// Why it is uncertain, if it is.
    #[must_use]
    pub fn doubt(self) -> Option<&'static str> {
        match self {
            Self::Uncertain(doubt) => Some(match doubt {
                Doubt::Gap => "gap",
                Doubt::LateStart => "late-start",
                Doubt::Silent => "silent",
                Doubt::SelfCheck => "self-check",
            }),
            _ => None,
        }
    }
}

// === impl Arrival ===

impl Arrival {
    fn fresh_start(self) -> bool {
        self.mark.seq == 0 || self.clears
    }
}

// === impl Orders ===

impl Orders {
    fn batch(batch: Fate) -> Self {
        Self { batch, ..Self::default() }
    }

    fn dropping(self) -> Self {
        Self { drop_blocks: true, ..self }
    }
}
