//! Decides which pod serves a request.
//!
//! Deciding is pure: time and randomness are arguments. Only discovery and the feeds do IO.

pub mod discovery;
pub mod feed;
pub mod openai;
pub mod pool;
pub mod tls;
pub mod tokenize;
pub mod units;
