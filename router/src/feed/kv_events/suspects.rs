//! Answers that found less than was promised, until their pod's story is told up to then.
//!
//! An answer may overtake the events that explain it: they come another way. So it is judged when its
//! pod's history was asked for and told, or, where there is none to ask, when the pod says more.

use std::fmt;
use std::mem;

use parking_lot::Mutex;

use super::calibration::{Compared, Outcome};

/// An answer that may accuse its pod's story.
pub struct Suspect {
    /// What was known when it came.
    pub answer: Compared,
    /// The least, in tokens, that the pod is known to have held, by all that it has told by now.
    pub least: Box<dyn Fn() -> u32 + Send>,
    /// Told what it has shown.
    pub shown: Box<dyn FnOnce(Outcome) + Send>,
}

/// Those of one pod.
#[derive(Debug, Default)]
pub(super) struct Suspects(Mutex<Vec<Suspect>>);

/// More at once are judged by what is known: a pod that tells nothing more must not hold prompts.
const MOST: usize = 64;

// === impl Suspects ===

impl Suspects {
    /// Keeps an answer; returns those that are judged instead, since there is no room.
    pub(super) fn push(&self, suspect: Suspect) -> Vec<Suspect> {
        let mut kept = self.0.lock();
        let over = if kept.len() < MOST { Vec::new() } else { mem::take(&mut *kept) };
        kept.push(suspect);
        over
    }

    /// All of them: the story is told.
    pub(super) fn take(&self) -> Vec<Suspect> {
        mem::take(&mut *self.0.lock())
    }
}

// === impl Suspect ===

impl fmt::Debug for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suspect").field("answer", &self.answer).finish_non_exhaustive()
    }
}
