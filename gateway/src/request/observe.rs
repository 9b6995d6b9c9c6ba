//! Watches an answer go by: first token, token count, usage. Looks, never buffers.

use std::time::Instant;

use bytes::Bytes;
use memchr::memmem;
use router::continuation::shows_answer;
use router::openai::Api;
use router::sse::{Lines, Piece};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::usage::Usage;

/// What was seen of an answer.
#[derive(Debug)]
pub(crate) struct Observer {
    started: Instant,
    is_stream: bool,
    api: Api,
    /// Of a stream.
    lines: Lines,
    /// The last bytes of a plain answer.
    tail: Vec<u8>,
    /// Seen so far.
    pub seen: Seen,
}

/// Facts about the answer, for the log, the metrics and the router.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Milliseconds to the first content token; none for a plain answer, which does not tell.
    pub ttft_ms: Option<f64>,
    /// Milliseconds to the last content token of a stream.
    pub last_token_ms: Option<f64>,
    /// Content tokens: from `usage` if the answer has one, else one per event with content.
    pub output_tokens: u32,
    /// `usage.prompt_tokens`.
    pub prompt_tokens: Option<u32>,
    /// `usage.prompt_tokens_details.cached_tokens`.
    pub cached_tokens: Option<u32>,
    /// The stream said `{"error": ...}`.
    pub has_error: bool,
}

/// A longer line is not looked into: 64 KiB hold an event with hundreds of log probabilities.
const MAX_LINE: usize = 64 << 10;

/// `usage` stands near the end of a plain answer.
const TAIL: usize = 4 << 10;

// === impl Observer ===

impl Observer {
    /// Watches from the moment that the client is counting from.
    #[must_use]
    pub(crate) fn new(started: Instant, is_stream: bool, api: Api) -> Self {
        let (lines, seen) = (Lines::new(MAX_LINE), Seen::default());
        Self { started, is_stream, api, lines, tail: Vec::new(), seen }
    }

    /// Looks at the next bytes of the answer. Says whether the first token was among them.
    pub(crate) fn look(&mut self, bytes: &Bytes) -> bool {
        let before = self.seen.ttft_ms.is_some();
        if self.is_stream {
            let Self { lines, seen, started, api, .. } = self;
            lines.cut(bytes, |piece| {
                if let Piece::Line(line) = piece {
                    seen.line(line, *api, *started);
                }
            });
        } else {
            keep_tail(&mut self.tail, bytes);
        }
        !before && self.seen.ttft_ms.is_some()
    }

    /// The answer is complete.
    pub(crate) fn finish(&mut self) {
        if !self.is_stream {
            self.seen.usage(&std::mem::take(&mut self.tail));
        }
    }

    /// Whether the stream stands in the middle of a line.
    pub(crate) fn is_mid_line(&self) -> bool {
        self.is_stream && self.lines.is_mid_line()
    }

    /// Milliseconds per output token after the first.
    #[must_use]
    pub(crate) fn tpot_ms(&self) -> Option<f64> {
        let (first, last) = (self.seen.ttft_ms?, self.seen.last_token_ms?);
        let more = self.seen.output_tokens.checked_sub(1).filter(|more| *more > 0)?;
        self.is_stream.then(|| (last - first) / f64::from(more))
    }
}

// === impl Seen ===

impl Seen {
    /// Looks at a line of a stream.
    fn line(&mut self, line: &[u8], api: Api, started: Instant) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        if data.trim_ascii() == b"[DONE]" {
            return;
        }
        if shows_answer(api, data) {
            let now_ms = ms_since(started);
            self.ttft_ms.get_or_insert(now_ms);
            self.last_token_ms = Some(now_ms);
            self.output_tokens += 1;
        } else if memmem::find(data, b"\"error\":").is_some() {
            self.has_error |= is_error(data);
        }
        self.usage(data);
    }

    fn usage(&mut self, bytes: &[u8]) {
        let Some(at) = memmem::rfind(bytes, b"\"usage\":") else { return };
        let value = &bytes[at + b"\"usage\":".len()..];
        let mut values = serde_json::Deserializer::from_slice(value).into_iter::<Usage>();
        let Some(Ok(usage)) = values.next() else { return };
        self.prompt_tokens = usage.prompt_tokens.or(self.prompt_tokens);
        self.output_tokens = usage.completion_tokens.unwrap_or(self.output_tokens);
        self.cached_tokens = usage.cached_tokens().or(self.cached_tokens);
    }
}

/// Whether the event is vLLM's error object, and not a text that speaks of one.
fn is_error(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    serde_json::from_slice::<Event<'_>>(data)
        .is_ok_and(|event| event.error.is_some_and(|error| error.get() != "null"))
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() >= TAIL {
        tail.clear();
        tail.extend_from_slice(&bytes[bytes.len() - TAIL..]);
        return;
    }
    let excess = (tail.len() + bytes.len()).saturating_sub(TAIL);
    tail.drain(..excess);
    tail.extend_from_slice(bytes);
}

fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
#[path = "observe/tests.rs"]
mod tests;
