//! Decides which pod serves a request.
//!
//! Deciding is pure: time and randomness are arguments. Only discovery and the feeds do IO.

pub mod bookings;
pub mod openai;
pub mod policy;
pub mod pool;
pub mod session;
pub mod tokenize;
