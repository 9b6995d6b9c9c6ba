//! Memory that readers may look at while it is given to someone else: words that never move.
//!
//! Chunks are added and never returned, so an address that was good once can always be read. What
//! it means is for the reader to check (`seqlock.rs`). Freed pieces wait in one list per size and
//! are neither cut nor joined: under steady churn the memory stays what it was at its peak.

use std::sync::OnceLock;

use super::sync::AtomicU64;

/// Words per chunk: 512 KiB.
const CHUNK_WORDS: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 16;
/// Bytes per chunk.
pub(super) const CHUNK_BYTES: usize = CHUNK_WORDS * 8;
/// The smallest and the largest piece, in words.
const LEAST: usize = 16;
const MOST: usize = 4096;
/// How many sizes above the wanted one a freed piece may have: an eighth of waste each.
const FIT: usize = 2;

/// Words by address, for everyone.
#[derive(Debug)]
pub(super) struct Words {
    chunks: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// Who hands out the words; the writer's.
#[derive(Debug)]
pub(super) struct Allocator {
    sizes: Vec<usize>,
    free: Vec<Vec<u32>>,
    chunks: usize,
    /// Words handed out of the newest chunk.
    taken: usize,
    /// Words in use.
    used: usize,
}

// === impl Words ===

impl Words {
    /// Room for `chunks` chunks, none of them there yet.
    pub(super) fn new(chunks: usize) -> Self {
        Self { chunks: (0..chunks).map(|_| OnceLock::new()).collect() }
    }

    /// `count` words from `at`; none if a torn read made that up.
    #[inline]
    pub(super) fn get(&self, at: u32, count: usize) -> Option<&[AtomicU64]> {
        let chunk = self.chunks.get((at >> CHUNK_BITS) as usize)?.get()?;
        let start = at as usize & (CHUNK_WORDS - 1);
        chunk.get(start..start + count)
    }

    /// The same for the writer, who knows.
    pub(super) fn of(&self, at: u32, count: usize) -> &[AtomicU64] {
        self.get(at, count).expect("the writer only asks for what it was given")
    }

    /// Makes the chunk of an address exist; whether there was room for it.
    pub(super) fn reach(&self, at: usize) -> bool {
        self.add(at >> CHUNK_BITS)
    }

    /// Makes the chunk exist; whether there was room for it.
    fn add(&self, chunk: usize) -> bool {
        self.chunks.get(chunk).is_some_and(|cell| {
            cell.get_or_init(|| (0..CHUNK_WORDS).map(|_| AtomicU64::new(0)).collect());
            true
        })
    }
}

// === impl Allocator ===

impl Default for Allocator {
    fn default() -> Self {
        let mut sizes = vec![LEAST];
        while let Some(&last) = sizes.last().filter(|last| **last < MOST) {
            sizes.push((last + (last / 8).max(LEAST)).next_multiple_of(LEAST).min(MOST));
        }
        let free = vec![Vec::new(); sizes.len()];
        Self { sizes, free, chunks: 0, taken: CHUNK_WORDS, used: 0 }
    }
}

impl Allocator {
    /// How many words a piece for `count` words really has.
    pub(super) fn rounded(&self, count: usize) -> usize {
        self.sizes[self.class(count)]
    }

    /// A piece of at least `count` words and its size; none when the memory is full.
    pub(super) fn take(&mut self, words: &Words, count: usize) -> Option<(u32, usize)> {
        let class = self.class(count);
        for near in class..(class + FIT + 1).min(self.sizes.len()) {
            if let Some(at) = self.free[near].pop() {
                self.used += self.sizes[near];
                return Some((at, self.sizes[near]));
            }
        }
        let size = self.sizes[class];
        if self.taken + size > CHUNK_WORDS {
            if !words.add(self.chunks) {
                return None;
            }
            self.keep_rest();
            // Address 0 is nobody's: where it can stand for "nowhere", it does.
            self.taken = if self.chunks == 0 { LEAST } else { 0 };
            self.chunks += 1;
        }
        let at = ((self.chunks - 1) << CHUNK_BITS) + self.taken;
        self.taken += size;
        self.used += size;
        Some((u32::try_from(at).ok()?, size))
    }

    /// Takes a piece back.
    pub(super) fn give(&mut self, at: u32, size: usize) {
        self.used -= size;
        let class = self.class(size);
        self.free[class].push(at);
    }

    /// Bytes in use.
    pub(super) fn used_bytes(&self) -> usize {
        self.used * 8
    }

    /// Bytes that this takes of the machine.
    pub(super) fn bytes(&self) -> usize {
        let lists: usize = self.free.iter().map(|list| list.capacity() * 4).sum();
        self.chunks * CHUNK_BYTES + lists
    }

    fn class(&self, count: usize) -> usize {
        self.sizes.partition_point(|size| *size < count).min(self.sizes.len() - 1)
    }

    /// What is left of the newest chunk becomes one free piece.
    fn keep_rest(&mut self) {
        let left = CHUNK_WORDS - self.taken;
        let class = self.sizes.partition_point(|size| *size <= left);
        if let (Some(class), Some(chunk)) = (class.checked_sub(1), self.chunks.checked_sub(1))
            && let Ok(at) = u32::try_from((chunk << CHUNK_BITS) + self.taken)
        {
            self.free[class].push(at);
        }
    }
}
