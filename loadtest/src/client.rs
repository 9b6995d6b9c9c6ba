//! An OpenAI client that measures: what one request cost, and where it went.
//!
//! It refuses to know what a job is for. [`Client::send`] takes one [`Call`] and always gives one
//! [`Answer`]: a failed request is a measurement too, so failures are fields, not `Err`.

mod answer;
mod call;
mod chunk;
mod counters;
mod receive;
mod send;
mod sse;

pub use answer::{Answer, Failure, Timing, millis};
pub use call::{Call, CallOptions, Message};
pub use counters::{CounterSource, Counters, CountersError, EngineConfig, PodCounters};
pub use send::{Client, ClientError};
pub use sse::{MAX_EVENT_BYTES, SseError, SseParser};

use serde::{Deserialize, Serialize};

/// Token counts of one answer, from the engine's own `usage` object.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt after the chat template.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Prompt tokens found in the engine's prefix cache; `None` when the engine does not say
    /// (vLLM without `--enable-prompt-tokens-details`).
    pub cached_tokens: Option<u64>,
}

#[cfg(test)]
mod tests;
