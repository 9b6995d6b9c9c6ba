//! How much of one prompt each pod is believed to hold, and how sure that is.
//!
//! | The pod's story | Known | Likely |
//! |---|---|---|
//! | exact | what it told | and what it was sent a moment ago, or is being sent |
//! | uncertain | what it told | and half of what it was sent beyond that |
//! | catching up | what it told so far | or what it was sent, whichever is more |
//! | catching up from the beginning | nothing | half of what it told so far, or what it was sent |
//! | approximate (tells nothing, or the prompt could not be tokenized) | what it was sent | the same |
//!
//! What is known is what the answer says and what the engine's own count is held against; what is
//! likely is what the request is placed by. What a pod told is dropped wherever a part of the story
//! was lost, so it says too little then, never too much.

use kv_index::{LastUse, Overlap};

use crate::feed::kv_events::Trust;
use crate::pool::Endpoint;

/// What is known of all pods about one prompt.
#[derive(Debug)]
pub struct Beliefs<'a> {
    /// What they told; none: the prompt has no blocks that could be looked up there.
    pub exact: Option<&'a Overlap>,
    /// What they were sent, or are being sent.
    pub approximate: &'a Overlap,
    /// Now, in milliseconds of the router's clock.
    pub now_ms: u64,
}

/// What is believed of one pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    /// Leading blocks that the pod is known to hold, as far as `trust` goes.
    pub known_blocks: u32,
    /// Leading blocks that it holds in all likelihood.
    pub likely_blocks: u32,
    /// Whether the last of these are still on their way to it.
    pub is_on_its_way: bool,
    /// How far what is known can be trusted.
    pub trust: Trust,
}

/// How long what was sent is taken as held before the pod has told of it: an engine tells at the
/// end of the step that filled a block, and its next batch comes within a step or two. By then it
/// has told, or does not hold it.
const UNTOLD_MS: u64 = 2_000;

// === impl Belief ===

impl Belief {
    /// What it is worth to a request for which the engine does not look into its cache: nothing.
    pub(crate) fn unread(self) -> Self {
        Self { trust: self.trust, ..Self::default() }
    }
}

// === impl Beliefs ===

impl Beliefs<'_> {
    /// What is believed of one pod.
    #[must_use]
    pub fn of(&self, endpoint: &Endpoint) -> Belief {
        let slot = endpoint.slot;
        let approximate = self.approximate.blocks(slot);
        let last_use = self.approximate.last_use(slot);
        let is_on_its_way = last_use == LastUse::OnItsWay;
        let trust = endpoint.kv_events.trust();
        let Some(exact) = self.exact.filter(|_| trust != Trust::Approximate) else {
            let trust = Trust::Approximate;
            return Belief {
                known_blocks: approximate,
                likely_blocks: approximate,
                is_on_its_way,
                trust,
            };
        };
        // A history that is not told to its end speaks of blocks that may be long gone.
        let is_history = trust == Trust::Retelling;
        let exact = if is_history { exact.blocks(slot) / 2 } else { exact.blocks(slot) };
        let beyond = approximate.saturating_sub(exact);
        let is_untold = match last_use {
            LastUse::OnItsWay => true,
            LastUse::AtMs(sent_ms) => sent_ms.saturating_add(UNTOLD_MS) >= self.now_ms,
        };
        let (likely_blocks, is_sent_counted) = match trust {
            Trust::Exact if is_untold => (exact + beyond, beyond > 0),
            Trust::Exact => (exact, false),
            Trust::Uncertain(_) => (exact + beyond / 2, beyond > 1),
            Trust::CatchingUp | Trust::Retelling | Trust::Approximate => {
                (exact + beyond, beyond > 0)
            }
        };
        let is_on_its_way = is_on_its_way && is_sent_counted;
        let known_blocks = if is_history { 0 } else { exact };
        Belief { known_blocks, likely_blocks, is_on_its_way, trust }
    }
}

#[cfg(test)]
mod tests;
