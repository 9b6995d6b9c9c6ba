//! Where a batch stands to those that were applied.
//!
//! vLLM numbers the batches of one process from 0, without holes. A restarted process begins at 0
//! again and says nothing of it.

use std::cmp::Ordering;

/// One batch's place in its publisher's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    /// By the engine's clock, seconds since the Unix epoch. With the number it tells one process's
    /// batch from another's.
    pub(crate) published_at_s: f64,
}

/// What a batch is after those that were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing is known of the stream yet.
    First,
    /// The one that is due.
    Next,
    /// It was applied before.
    Duplicate,
    /// At least one before it is missing.
    Ahead,
    /// It was published later than the last, under a number that was used before: another process.
    Backwards,
}

/// The batches that were applied.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sequence {
    next: Option<u64>,
    last: Option<Mark>,
}

// === impl Mark ===

impl PartialEq for Mark {
    /// The same batch; also one whose time could not be read equals itself.
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq && self.published_at_s.to_bits() == other.published_at_s.to_bits()
    }
}

// === impl Sequence ===

impl Sequence {
    pub(crate) fn place(&self, mark: Mark) -> Place {
        let Some(next) = self.next else { return Place::First };
        match mark.seq.cmp(&next) {
            Ordering::Equal => Place::Next,
            Ordering::Greater => Place::Ahead,
            Ordering::Less => match self.last {
                Some(last) if last.seq == mark.seq && last != mark => Place::Backwards,
                Some(last) if mark.published_at_s > last.published_at_s => Place::Backwards,
                _ => Place::Duplicate,
            },
        }
    }

    /// This batch was applied, or given up: what follows it is due.
    pub(crate) fn advance(&mut self, mark: Mark) {
        self.next = Some(mark.seq.saturating_add(1));
        self.last = Some(mark);
    }

    /// Nothing was ever published: 0 is due.
    pub(crate) fn begin(&mut self) {
        self.next.get_or_insert(0);
    }

    /// The number that is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.next
    }

    /// The last batch that was applied.
    pub(crate) fn last(&self) -> Option<Mark> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: u64, published_at_s: f64) -> Mark {
        Mark { seq, published_at_s }
    }

    #[test]
    fn the_first_batch_is_judged_by_nothing() {
        assert_eq!(Sequence::default().place(mark(7, 1.0)), Place::First);
    }

    #[test]
    fn a_batch_is_next_ahead_or_a_duplicate_by_its_number() {
        let mut sequence = Sequence::default();
        sequence.advance(mark(4, 10.0));
        let place = |seq, at| sequence.place(mark(seq, at));
        assert_eq!(place(5, 11.0), Place::Next);
        assert_eq!(place(6, 12.0), Place::Ahead);
        assert_eq!(place(4, 10.0), Place::Duplicate);
        assert_eq!(place(2, 8.0), Place::Duplicate);
    }

    #[test]
    fn a_used_number_published_later_is_another_process() {
        let mut sequence = Sequence::default();
        sequence.advance(mark(4, 10.0));
        assert_eq!(sequence.place(mark(0, 11.0)), Place::Backwards);
        // Its clock may run behind: the last number under another time is proof as well.
        assert_eq!(sequence.place(mark(4, 9.0)), Place::Backwards);
    }

    #[test]
    fn an_empty_history_makes_zero_due() {
        let mut sequence = Sequence::default();
        sequence.begin();
        assert_eq!(sequence.place(mark(0, 1.0)), Place::Next);
        assert_eq!(sequence.place(mark(1, 1.0)), Place::Ahead);
    }
}
