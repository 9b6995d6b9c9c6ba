//! Which pod holds which KV-cache blocks.
//!
//! Four nouns: a *block* is a fixed run of prompt tokens, a *chain* is a prompt's blocks in order
//! (each block's hash contains everything before it), a *slot* is a pod's dense number here, and
//! an *overlap* says how many leading blocks of one chain each slot holds.
//!
//! No tokio, no HTTP, no JSON, no log, no clock.

mod slots;

pub use slots::{Slot, SlotSet, Slots};
