//! What an engine says about its cache, minus how it says it.

/// An engine's own name for a block, known only to the pods that sent it: vLLM's 64-bit number, or
/// the last eight bytes, big-endian, of a hash that it sent as bytes (its own rule for the number).
///
/// Never recomputed: which of our blocks it names follows from the token ids beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EngineHash(pub u64);

/// One thing that happened in a pod's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A run of blocks was filled.
    Stored(Stored),
    /// Blocks were given to something else.
    Removed(Removed),
    /// The whole cache was emptied.
    Cleared,
}

/// A run of consecutive blocks of one chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The blocks, in order.
    pub blocks: Vec<EngineHash>,
    /// The block before the first; none at the start of a chain, and in a re-announcement.
    pub parent: Option<EngineHash>,
    /// The token ids of all the blocks, flat: `blocks.len() * block_tokens`. Empty if the engine
    /// names none, as offloading stores do: then the blocks are known by their hashes alone.
    pub tokens: Vec<u32>,
    /// Tokens per block, never 0.
    pub block_tokens: u32,
    /// The adapter (LoRA) under which they were computed. One that the engine names by its number
    /// alone gets a name that no request can have.
    pub adapter: Option<String>,
    /// What besides the tokens is part of each block's identity; empty: nothing, for every block.
    /// The adapter's name is not repeated here.
    pub extra_keys: Vec<Vec<ExtraKey>>,
    /// Where they lie.
    pub medium: Medium,
    /// The KV-cache group (of a hybrid model) that they belong to.
    pub group: u32,
    /// The group's sliding window, in tokens.
    pub window: Option<u32>,
    /// Whether the engine repeats what it already holds (`kv_cache_report_mode: full`): nothing
    /// was allocated, so nothing is counted twice.
    pub is_announcement: bool,
}

/// Blocks that a pod no longer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The blocks, in no order.
    pub blocks: Vec<EngineHash>,
    /// Where they lay.
    pub medium: Medium,
    /// The KV-cache group that they belonged to.
    pub group: u32,
}

/// A part of a block's identity that is not a token: a cache salt, an image's hash, …
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExtraKey {
    /// A text, such as `cache_salt` on a chain's first block.
    Text(String),
    /// Anything else, as encoded on the wire.
    Opaque(Vec<u8>),
}

/// Where a block lies; nearer ones are faster to reuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Medium {
    /// Device memory.
    #[default]
    Gpu,
    /// Host memory.
    Cpu,
    /// A disk or an object store.
    Storage,
}
