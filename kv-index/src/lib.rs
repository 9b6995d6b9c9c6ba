//! Which pod holds which KV-cache blocks.
//!
//! Four nouns: a *block* is a fixed run of prompt tokens (or, without a tokenizer, of prompt
//! bytes), a *chain* is a prompt's blocks in order (each block's hash contains everything before
//! it), a *slot* is a pod's dense number here, and an *overlap* says how many leading blocks of
//! one chain each slot holds.
//!
//! No tokio, no HTTP, no JSON, no log, no clock: time is a number of milliseconds that the caller
//! counts from a moment of its choice.

mod approximate;
mod event;
mod exact;
mod hash;
mod milestones;
mod overlap;
mod recency;
mod slots;
pub mod wire;

pub use approximate::{ApproximateIndex, Settings};
pub use event::{EngineHash, Event, ExtraKey, Medium, Removed, Stored};
pub use exact::{Applied, ExactIndex, ExactSettings, MOST_SLOTS};
pub use hash::{BlockHash, ChainHasher};
pub use milestones::Milestones;
pub use overlap::{LastUse, Overlap};
pub use recency::{BYTES_PER_ENTRY, Capacity, Recency};
pub use slots::{Slot, Slots};
