//! Where a JSON string can end or be broken: quotes, backslashes and control characters.

use wide::u8x16;

/// Finds them in ascending order, and looks at each block once however short the strings in it are.
pub(super) struct Marks<'a> {
    bytes: &'a [u8],
    /// Where the block begins that was looked at last.
    base: usize,
    /// A bit for each of its bytes.
    found: u64,
}

/// As many bytes as a mask has bits.
const BLOCK: usize = u64::BITS as usize;

// === impl Marks ===

impl<'a> Marks<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, base: 0, found: marks(bytes, 0) }
    }

    /// The first one at or behind `from`, which must not be before the one that was found last.
    #[inline]
    pub(super) fn next(&mut self, from: usize) -> Option<usize> {
        // Escapes are dense: mostly the next mark is in the block that was looked at last.
        if from - from % BLOCK == self.base {
            let found = self.found & (u64::MAX << (from % BLOCK));
            if found != 0 {
                self.found = found;
                return Some(self.base + found.trailing_zeros() as usize);
            }
        }
        self.search(from)
    }

    /// The same, through as many blocks as it takes.
    fn search(&mut self, from: usize) -> Option<usize> {
        let base = from - from % BLOCK;
        if base != self.base {
            (self.base, self.found) = (base, marks(self.bytes, base));
        }
        self.found &= u64::MAX << (from - base);
        while self.found == 0 {
            self.base += BLOCK;
            if self.base >= self.bytes.len() {
                return None;
            }
            self.found = marks(self.bytes, self.base);
        }
        Some(self.base + self.found.trailing_zeros() as usize)
    }
}

/// A bit for each mark in the block at `base`.
fn marks(bytes: &[u8], base: usize) -> u64 {
    let rest = bytes.get(base..).unwrap_or_default();
    match rest.first_chunk::<BLOCK>() {
        Some(block) => marks_of(block),
        None => {
            let mut block = [b' '; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            marks_of(&block)
        }
    }
}

fn marks_of(block: &[u8; BLOCK]) -> u64 {
    let (lanes, _) = block.as_chunks::<16>();
    lanes.iter().rev().fold(0, |found, lane| {
        let lane = u8x16::new(*lane);
        let is_mark = lane.simd_eq(u8x16::splat(b'"'))
            | lane.simd_eq(u8x16::splat(b'\\'))
            // At most the last control character.
            | lane.simd_eq(lane.min(u8x16::splat(b' ' - 1)));
        (found << 16) | u64::from(is_mark.to_bitmask())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn marks_are_what_a_search_byte_by_byte_finds(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            from in 0_usize..300,
        ) {
            let is_mark = |b: u8| b == b'"' || b == b'\\' || b < b' ';
            let mut marks = Marks::of(&bytes);
            let mut at = from.min(bytes.len());
            loop {
                let want = (at..bytes.len()).find(|i| is_mark(bytes[*i]));
                let got = marks.next(at);
                proptest::prop_assert_eq!(got, want);
                let Some(next) = got else { break };
                at = next + 1;
            }
        }
    }
}
