//! How many requests an engine runs at once, learned from its own gauges.

use crate::pod::EngineHints;

/// How many requests an engine runs at once, as far as it has shown.
///
/// While requests wait inside it, it runs as many as it can: of these counts the highest is its capacity.
/// When it then runs as many and none waits, it may have room for more: nothing is known again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Capacity {
    limit: Option<u32>,
    had_queue: bool,
}

// === impl Capacity ===

impl Capacity {
    /// Takes in what was read now.
    pub(super) fn read(&mut self, hints: &EngineHints) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and the parser lets nothing negative through"
        )]
        let running = hints.running as u32;
        let has_queue = hints.waiting > 0.0;
        // What came a moment ago waits for the next step: only a queue that lasts says something.
        if has_queue && self.had_queue && running > 0 {
            self.limit = Some(self.limit.unwrap_or_default().max(running));
        } else if !has_queue && self.limit.is_some_and(|limit| running >= limit) {
            self.limit = None;
        }
        self.had_queue = has_queue;
    }

    /// Requests that it runs at once; none before it had a queue.
    pub(super) fn limit(&self) -> Option<u32> {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_runs_while_others_wait_is_its_capacity() {
        for (reads, limit, why) in [
            (&[(3.0, 0.0), (9.0, 0.0)][..], None, "it never had a queue"),
            (&[(4.0, 2.0)], None, "they may have come this moment"),
            (&[(4.0, 2.0), (4.0, 1.0)], Some(4), "a queue that lasts"),
            (&[(4.0, 2.0), (4.0, 0.0), (4.0, 2.0)], None, "two short ones"),
            (&[(4.0, 2.0), (4.0, 2.0), (3.0, 5.0)], Some(4), "long prompts, of which fewer fit"),
            (&[(4.0, 2.0), (4.0, 2.0), (6.0, 5.0)], Some(6), "it has shown more"),
            (&[(4.0, 2.0), (4.0, 2.0), (2.0, 0.0)], Some(4), "it is less busy now"),
            (&[(4.0, 2.0), (4.0, 2.0), (4.0, 0.0)], None, "and yet none waits: more may fit"),
            (&[(0.0, 2.0), (0.0, 2.0)], None, "it stands still, which says nothing"),
        ] {
            let mut capacity = Capacity::default();
            for &(running, waiting) in reads {
                capacity.read(&EngineHints { running, waiting, ..EngineHints::default() });
            }
            assert_eq!(capacity.limit(), limit, "{why}");
        }
    }
}
