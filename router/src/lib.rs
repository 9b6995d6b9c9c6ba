//! Decides which pod serves a request.
//!
//! Deciding is pure: time and randomness are arguments. Only discovery and the feeds do IO.

pub mod bookings;
pub mod decide;
pub mod discovery;
pub mod feed;
pub mod openai;
pub mod policy;
pub mod pool;
mod prompt;
pub mod query;
mod refusal;
mod router;
pub mod session;
mod text_rate;
pub mod tls;
pub mod tokenize;
pub mod units;

pub use prompt::Tokenizers;
pub use refusal::Refusal;
pub use router::{Decision, Placement, Router, Trust};
