//! One run: an unbranched stretch of a chain, the keys of its blocks, and who holds how much of it.
//!
//! A header is 16 words (two cache lines) in an arena of its own, found by the run's number:
//!
//! | word | |
//! |---|---|
//! | 0 | version (`seqlock.rs`) |
//! | 1, 2 | keys of its first and last block |
//! | 3 | where its keys lie (upper half), how many there are |
//! | 4 | where its holders lie (upper half; 0: in words 6 to 15), bitmap words per medium (8 bits), media (8), partial holders (16) |
//! | 5 | when it was last wanted, in ticks; written by readers |
//!
//! Holders are prefix lengths: a bitmap per medium of the pods that hold all of it, then one word
//! for each pod that holds only its first blocks. A pod with a hole makes the run be cut there, so
//! that both pieces are held by prefixes again.

use super::arena::Words;
use super::seqlock::{self, Writing};
use super::sync::{AtomicU64, Ordering};

/// Blocks in a run at most: bounds what a split or a growth copies.
pub(super) const MOST_BLOCKS: usize = 1024;
/// Media that a holder may use, as planes of the bitmap.
pub(super) const MEDIA: usize = 3;

pub(super) const HEADER: usize = 16;
const VERSION: usize = 0;
const HEAD: usize = 1;
const TAIL: usize = 2;
const KEYS: usize = 3;
const HOLDERS: usize = 4;
const TOUCHED: usize = 5;
const INLINE: usize = 6;
/// Holder words that fit into the header.
pub(super) const INLINE_WORDS: usize = HEADER - INLINE;

/// A run's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    words: &'a [AtomicU64],
}

/// Where a run's keys are and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) at: u32,
    pub(super) len: usize,
}

/// Where a run's holders are and how they are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Address of the words; 0: in the header.
    pub(super) at: u32,
    /// Bitmap words per medium.
    pub(super) width: usize,
    /// 1 while only device memory was ever used, else [`MEDIA`].
    pub(super) media: usize,
    /// Holders of a part.
    pub(super) partials: usize,
}

/// A pod that holds the first `len` blocks of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) slot: usize,
    pub(super) medium: usize,
    pub(super) len: usize,
}

/// The number of a run's header in the arena of headers.
pub(super) fn header(headers: &Words, run: u32) -> Option<Header<'_>> {
    let at = run.checked_mul(16)?;
    headers.get(at, HEADER).map(|words| Header { words })
}

// === impl Header ===

impl<'a> Header<'a> {
    pub(super) fn write(self) -> Writing<'a> {
        seqlock::write(&self.words[VERSION])
    }

    #[inline]
    pub(super) fn read(self) -> Option<u64> {
        seqlock::read(&self.words[VERSION])
    }

    #[inline]
    pub(super) fn is_whole(self, seen: u64) -> bool {
        seqlock::is_whole(&self.words[VERSION], seen)
    }

    #[inline]
    pub(super) fn head(self) -> u64 {
        self.words[HEAD].load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn tail(self) -> u64 {
        self.words[TAIL].load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn keys(self) -> Keys {
        let word = self.words[KEYS].load(Ordering::Relaxed);
        Keys { at: upper(word), len: field(word, 0, 16) }
    }

    #[inline]
    pub(super) fn layout(self) -> Layout {
        let word = self.words[HOLDERS].load(Ordering::Relaxed);
        Layout {
            at: upper(word),
            width: field(word, 24, 8),
            media: field(word, 16, 8),
            partials: field(word, 0, 16),
        }
    }

    /// The holders' words; none if the layout was torn.
    #[inline]
    pub(super) fn holders(self, layout: Layout, words: &'a Words) -> Option<&'a [AtomicU64]> {
        let count = layout.width * layout.media + layout.partials;
        if layout.at == 0 {
            self.words.get(INLINE..INLINE + count)
        } else {
            words.get(layout.at, count)
        }
    }

    pub(super) fn touched(self) -> u64 {
        self.words[TOUCHED].load(Ordering::Relaxed)
    }

    /// Somebody wanted it now. Written only when the tick has changed, so that a hot run's line
    /// stays shared.
    #[inline]
    pub(super) fn touch(self, tick: u64) {
        if self.words[TOUCHED].load(Ordering::Relaxed) != tick {
            self.words[TOUCHED].store(tick, Ordering::Relaxed);
        }
    }

    pub(super) fn set_head(self, key: u64) {
        self.words[HEAD].store(key, Ordering::Relaxed);
    }

    pub(super) fn set_keys(self, keys: Keys, tail: u64) {
        self.words[TAIL].store(tail, Ordering::Relaxed);
        let word = u64::from(keys.at) << 32 | keys.len as u64;
        self.words[KEYS].store(word, Ordering::Relaxed);
    }

    pub(super) fn set_layout(self, layout: Layout) {
        let Layout { at, width, media, partials } = layout;
        let word =
            u64::from(at) << 32 | (width as u64) << 24 | (media as u64) << 16 | partials as u64;
        self.words[HOLDERS].store(word, Ordering::Relaxed);
    }
}

// === impl Partial ===

impl Partial {
    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        Self { slot: field(word, 48, 16), medium: field(word, 40, 8), len: field(word, 0, 16) }
    }

    pub(super) fn pack(self) -> u64 {
        (self.slot as u64) << 48 | (self.medium as u64) << 40 | self.len as u64
    }
}

fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "at most 16 bits are kept")]
fn field(word: u64, shift: u32, bits: u32) -> usize {
    (word >> shift) as usize & ((1 << bits) - 1)
}
