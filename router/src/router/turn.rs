//! Placing in a simulation: time and luck are arguments, and the rule may be another's.

use std::fmt;
use std::hash::Hash;
use std::time::Instant;

use super::{Placement, Router};
use crate::conversations::Home;
use crate::policy::Rule;
use crate::query::{PromptBlocks, Query};
use crate::refusal::Refusal;

/// When a request is placed, with what luck and by whose rule.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// Now; never before the router was made.
    pub now: Instant,
    /// Random bits.
    pub dice: u64,
    /// Picks a row; none: the configured policy does.
    pub rule: Option<&'a Rule<'a>>,
}

// === impl Turn ===

impl Turn<'_> {
    /// Now, by chance and by the configured policy.
    pub(super) fn real() -> Self {
        Self { now: Instant::now(), dice: rand::random(), rule: None }
    }
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { now, dice, rule } = self;
        write!(f, "Turn {{ now: {now:?}, dice: {dice}, ruled: {} }}", rule.is_some())
    }
}

// === impl Router ===

impl Router {
    /// [`Router::place`] at a given turn.
    ///
    /// # Errors
    /// When no pod is ready.
    pub fn place_at(&self, query: &Query, turn: Turn<'_>) -> Result<Placement, Refusal> {
        self.place_by((&self.settings, turn), query, (&[], None), None)
    }

    /// Where a prompt of these items is at home, so many of them to a block.
    #[must_use]
    pub fn home<T: Hash>(&self, prompt: &PromptBlocks, items: &[T], block: usize) -> Option<Home> {
        self.memory.conversations.home(&prompt.milestones, items, block)
    }
}
