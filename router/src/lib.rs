//! Decides which pod serves a request.
//!
//! Deciding is pure: time and randomness are arguments. Only discovery and the feeds do IO.

pub mod aliases;
mod backoff;
pub mod belief;
pub mod bookings;
pub mod connector;
pub mod continuation;
mod conversations;
pub mod decide;
pub mod discovery;
pub mod feed;
pub mod knowledge;
mod memory;
pub mod openai;
mod pod;
pub mod policy;
pub mod pool;
mod prompt;
pub mod query;
pub mod queue;
mod refusal;
pub mod rescue;
mod router;
pub mod session;
pub mod silence;
pub mod split;
pub mod sse;
pub mod story;
pub mod subset;
mod text_rate;
pub mod tls;
pub mod tokenize;
mod tokenizers;
pub mod units;
pub mod why;

pub use conversations::{End, Home};
pub use feed::kv_events::Trust;
pub use knowledge::Knowledge;
pub use refusal::Refusal;
pub use router::{Decision, Placement, Router, Turn};
pub use split::{Split, SplitSettings};
pub use tokenizers::{TokenizerReport, Tokenizers};
