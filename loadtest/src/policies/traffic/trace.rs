//! A trace in Mooncake's format: one JSON object a line, with time, lengths and the names of the
//! prompt's blocks, 512 tokens each (kvcache-ai/Mooncake, FAST'25).

use std::collections::HashMap;
use std::io::BufRead;
use std::time::Duration;

use serde::Deserialize;

use super::{Due, Request, Traffic};

/// Tokens per block of the trace.
const BLOCK_TOKENS: usize = 512;

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("the trace cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not what Mooncake's are.
    #[error("line {line} of the trace: {error}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

#[derive(Debug, Deserialize)]
struct Line {
    timestamp: u64,
    input_length: usize,
    output_length: usize,
    hash_ids: Vec<u32>,
}

/// Reads a trace. It names no sessions: who continues another's blocks, beyond the first one that
/// all share, is of its session.
///
/// # Errors
/// It cannot be read, or is not of this format.
pub(crate) fn read(trace: impl BufRead) -> Result<Traffic, TraceError> {
    let mut sessions: HashMap<u32, u64> = HashMap::new();
    let mut requests = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let line = line?;
        let parsed = serde_json::from_str(&line);
        let line: Line = parsed.map_err(|error| TraceError::Line { line: number + 1, error })?;
        let own = line.hash_ids.iter().skip(1);
        let continued = own.clone().map_while(|block| sessions.get(block)).last().copied();
        let session = continued.unwrap_or(number as u64);
        sessions.extend(own.map(|block| (*block, session)));
        let full = line.input_length / BLOCK_TOKENS;
        requests.push(Request {
            session,
            blocks: line.hash_ids.into_iter().take(full).collect(),
            prompt_tokens: line.input_length.max(1),
            output_tokens: line.output_length.max(1),
            due: Due::At(Duration::from_millis(line.timestamp)),
        });
    }
    Ok(Traffic { requests, block_tokens: BLOCK_TOKENS, at_once: 1 })
}
