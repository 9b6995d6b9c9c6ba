//! What is sent and when: prompts, documents, arrival times. Pure functions of a seed.

mod arrival;
mod documents;
mod text;

pub use arrival::Arrivals;
pub use documents::{DocumentsShape, Step, Turn};
pub use text::{HEALTH, PROMPT, TokenRatio, prose};
