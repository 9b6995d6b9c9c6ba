//! What was tokenized before is not tokenized again: the ids of pieces of text.
//!
//! A text is cut where that changes nothing ([`Cuts`]), into pieces of a kilobyte or a little more,
//! and the ids of each piece are kept under a hash of its text. A turn of a conversation repeats all
//! turns before it, so only its last pieces are new; so do prompts that share a document, and
//! conversations that lost their head. The last piece, which the next turn will extend, is not kept.
//!
//! [`Cuts`]: super::cuts::Cuts

use std::sync::atomic::{AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

/// Ids of pieces of text, the least recently used forgotten first; shared by all tokenizers and
/// threads.
#[derive(Debug)]
pub struct Memo {
    shards: Box<[Mutex<Shard>]>,
    shard_bytes: usize,
    found_tokens: AtomicU64,
    made_tokens: AtomicU64,
}

/// What a memo did and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoReport {
    /// Bytes held, with what the tables need.
    pub bytes: usize,
    /// Prompt tokens that were found.
    pub found_tokens: u64,
    /// Prompt tokens that had to be made, last pieces included.
    pub made_tokens: u64,
}

/// The name of a piece: 128 bits, keyed with a secret of its tokenizer in this process.
///
/// The odds that any two of 10^8 pieces share a name are 10^16 / 2^129; a client that does not know
/// the secret cannot do better.
pub(super) type PieceKey = u128;

#[derive(Debug)]
struct Shard {
    pieces: LruCache<PieceKey, Box<[u32]>>,
    bytes: usize,
}

/// Enough that as many threads as a large machine has seldom meet at a lock, which is held for the
/// copy of a kilobyte.
const SHARDS: usize = 64;

/// Of one piece beside its ids: the list's node (16 for the key, 16 for the box, 16 for the links),
/// its allocation's header, and its place in a table that is at worst 7/16 full.
const PIECE_BYTES: usize = 48 + 16 + 56;

// === impl Memo ===

impl Default for Memo {
    fn default() -> Self {
        Self::new(Self::DEFAULT_BYTES)
    }
}

impl Memo {
    /// The default budget: at about 4.5 bytes per token the ids of 14 million tokens, or of 140
    /// conversations of 100,000 tokens that share nothing.
    pub const DEFAULT_BYTES: usize = 64 << 20;

    /// A memo of at most so many bytes; 0: one that remembers nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let shard = || Mutex::new(Shard { pieces: LruCache::unbounded(), bytes: 0 });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            shard_bytes: bytes / SHARDS,
            found_tokens: AtomicU64::new(0),
            made_tokens: AtomicU64::new(0),
        }
    }

    /// What it did and holds.
    #[must_use]
    pub fn report(&self) -> MemoReport {
        MemoReport {
            bytes: self.shards.iter().map(|shard| shard.lock().bytes).sum(),
            found_tokens: self.found_tokens.load(Ordering::Relaxed),
            made_tokens: self.made_tokens.load(Ordering::Relaxed),
        }
    }

    /// Appends a piece's ids, if they are known.
    pub(super) fn find(&self, key: PieceKey, ids: &mut Vec<u32>) -> bool {
        let mut shard = self.shard(key).lock();
        let found = shard.pieces.get(&key).map(|piece| ids.extend_from_slice(piece));
        found.is_some()
    }

    /// Keeps a piece's ids.
    pub(super) fn keep(&self, key: PieceKey, ids: &[u32]) {
        let bytes = piece_bytes(ids);
        if bytes > self.shard_bytes {
            return;
        }
        let mut shard = self.shard(key).lock();
        if let Some(before) = shard.pieces.put(key, ids.into()) {
            shard.bytes -= piece_bytes(&before);
        }
        shard.bytes += bytes;
        while shard.bytes > self.shard_bytes {
            let Some((_, oldest)) = shard.pieces.pop_lru() else { break };
            shard.bytes -= piece_bytes(&oldest);
        }
    }

    /// Counts one text's tokens.
    pub(super) fn count(&self, found: usize, made: usize) {
        self.found_tokens.fetch_add(found as u64, Ordering::Relaxed);
        self.made_tokens.fetch_add(made as u64, Ordering::Relaxed);
    }

    fn shard(&self, key: PieceKey) -> &Mutex<Shard> {
        &self.shards[(key % SHARDS as PieceKey) as usize]
    }
}

fn piece_bytes(ids: &[u32]) -> usize {
    size_of_val(ids) + PIECE_BYTES
}

#[cfg(test)]
#[path = "memo/tests.rs"]
mod tests;
