//! Where a long chain is remembered: at every block first, then at wider and wider steps.
//!
//! A chained hash vouches for everything before it, so a memory of what was sent need not keep
//! every block. Milestones stand at each of the first 64 blocks, then at every second block up to
//! 128, every fourth up to 256, and so on: 32 to each doubling. What a pod holds of a prompt is
//! thereby understated by at most 1/32 of it, never overstated, and a prompt of 7,000 blocks takes
//! 278 entries.

use crate::BlockHash;

/// Milestones to each doubling of the position.
const PER_DOUBLING: usize = 32;

/// The hashes of a chain's blocks at its milestones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Milestones(Vec<BlockHash>);

// === impl Milestones ===

impl Milestones {
    /// The milestones of a chain of which every block is known.
    #[must_use]
    pub fn of(chain: &[BlockHash]) -> Self {
        let hash = |number: usize| chain.get(Self::position(number).checked_sub(1)?).copied();
        Self((1..).map_while(hash).collect())
    }

    /// A chain that was hashed from milestone to milestone.
    pub(crate) fn hashed(hashes: Vec<BlockHash>) -> Self {
        Self(hashes)
    }

    /// The block at each milestone, in order.
    #[must_use]
    pub fn hashes(&self) -> &[BlockHash] {
        &self.0
    }

    /// After how many blocks the milestone `number` stands, counted from 1; 0 for none.
    #[must_use]
    pub const fn position(number: usize) -> usize {
        if number <= 2 * PER_DOUBLING {
            return number;
        }
        let past = number - PER_DOUBLING - 1;
        let doublings = past / PER_DOUBLING;
        // More than any prompt has blocks; the shift must not overflow.
        if doublings > 32 {
            return usize::MAX;
        }
        (PER_DOUBLING + past % PER_DOUBLING + 1) << doublings
    }

    /// How many blocks stand between the milestone before `number` and itself.
    #[must_use]
    pub const fn stride(number: usize) -> usize {
        Self::position(number) - Self::position(number.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_rise_and_understate_by_a_32nd_at_most() {
        for number in 0..1_000 {
            let (here, next) = (Milestones::position(number), Milestones::position(number + 1));
            assert!(here < next, "{number}");
            assert!(next - here <= 1 + here / 32, "{number}: {here} to {next}");
        }
        let seen = [1, 64, 65, 96, 97, 128, 129].map(Milestones::position);
        assert_eq!(seen, [1, 64, 66, 128, 132, 256, 264]);
        assert_eq!([1, 64, 65, 97].map(Milestones::stride), [1, 1, 2, 4]);
        assert_eq!((1..).take_while(|n| Milestones::position(*n) <= 7_000).count(), 278);
    }
}
