//! Every request as one JSON line: what others can compute their own figures from.

use std::fs::File;
use std::io::{LineWriter, Result, Write};
use std::path::Path;

use serde::Serialize;

use crate::client::{Answer, millis};
use crate::workload::{Step, Turn};

/// The file that they go to, a line at a time.
pub(super) type Records = LineWriter<File>;

/// One request. Tokens are the answer's own count, absent where it told none.
#[derive(Serialize)]
struct Record<'a> {
    target: &'a str,
    session: u32,
    document: u32,
    turn: u8,
    /// The pod, where the gateway names it.
    upstream: Option<&'a str>,
    prompt_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    ttft_ms: Option<f64>,
    total_ms: f64,
    failure: Option<String>,
}

pub(super) fn create(path: &Path) -> Result<Records> {
    Ok(LineWriter::new(File::create(path)?))
}

pub(super) fn write(
    records: &mut Records,
    target: &str,
    step: Step,
    answer: &Answer,
) -> Result<()> {
    let record = Record {
        target,
        session: step.session,
        document: step.document,
        turn: if step.turn == Turn::First { 1 } else { 2 },
        upstream: answer.upstream(),
        prompt_tokens: answer.usage.map(|usage| usage.prompt_tokens),
        cached_tokens: answer.usage.and_then(|usage| usage.cached_tokens),
        ttft_ms: answer.timing.ttft.map(millis),
        total_ms: millis(answer.timing.total),
        failure: answer.failure.as_ref().map(ToString::to_string),
    };
    serde_json::to_writer(&mut *records, &record)?;
    writeln!(records)
}
