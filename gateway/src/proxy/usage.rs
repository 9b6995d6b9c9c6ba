//! `usage.prompt_tokens_details.cached_tokens` of an answer whose prompt another pod has computed.
//!
//! The pod that answers counts what it got from there as it likes: vLLM 0.32 says 0, 0.26 said all.
//! What was really reused is what the prefill pod found in its cache, and that is what clients get.
//! Every other byte stays.

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;
use router::sse::{Lines, Piece};

/// Rewrites an answer as it passes, holding back no more than an unfinished line, or the last bytes
/// of a plain answer.
#[derive(Debug)]
pub(super) struct Repair {
    cached_tokens: u32,
    /// Of a stream.
    lines: Option<Lines>,
    /// The last bytes of a plain answer.
    held: BytesMut,
}

/// Where `usage` may stand in a plain answer: its last bytes.
const TAIL: usize = 4 << 10;

/// A longer line goes on as it is: none with `usage` is.
const MAX_LINE: usize = 64 << 10;

// === impl Repair ===

impl Repair {
    /// This many tokens were reused.
    pub(super) fn new(cached_tokens: u32, is_stream: bool) -> Self {
        let lines = is_stream.then(|| Lines::new(MAX_LINE));
        Self { cached_tokens, lines, held: BytesMut::new() }
    }

    /// The next bytes of the answer; returns those that may go on.
    pub(super) fn pass(&mut self, bytes: &Bytes) -> Bytes {
        let Self { cached_tokens, lines, held } = self;
        let Some(lines) = lines else {
            held.extend_from_slice(bytes);
            return held.split_to(held.len().saturating_sub(TAIL)).freeze();
        };
        let mut out = BytesMut::with_capacity(bytes.len() + 8);
        lines.cut(bytes, |piece| match piece {
            Piece::Line(line) => put_repaired(line, *cached_tokens, &mut out),
            Piece::Part(part) => out.put_slice(part),
        });
        out.freeze()
    }

    /// The answer is at its end; returns what was held back.
    pub(super) fn finish(&mut self) -> Bytes {
        let rest = match &mut self.lines {
            Some(lines) => lines.take_rest(),
            None => self.held.split().to_vec(),
        };
        let mut out = BytesMut::with_capacity(rest.len() + 8);
        put_repaired(&rest, self.cached_tokens, &mut out);
        out.freeze()
    }
}

/// A key as it is spelled; inside a string its quotes would be escaped.
const USAGE: &[u8] = b"\"usage\":";

/// The counts of cached prompt tokens, in the shapes of chat, completions and responses, and of
/// messages.
const CACHED: [&[u8]; 2] = [b"\"cached_tokens\":", b"\"cache_read_input_tokens\":"];

/// Appends one object of an answer with `cached_tokens` in its `usage` set, if it has one. Pure.
fn put_repaired(json: &[u8], cached_tokens: u32, out: &mut BytesMut) {
    let found = memmem::rfind(json, USAGE).and_then(|usage| {
        CACHED.iter().find_map(|key| {
            let value = usage + memmem::find(&json[usage..], key)? + key.len();
            let space = json[value..].iter().take_while(|byte| **byte == b' ').count();
            let value = value + space;
            let len = json[value..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let len = if json[value..].starts_with(b"null") { 4 } else { len };
            (len > 0).then_some(value..value + len)
        })
    });
    let Some(value) = found else { return out.put_slice(json) };
    out.put_slice(&json[..value.start]);
    out.put_slice(cached_tokens.to_string().as_bytes());
    out.put_slice(&json[value.end..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":1000,"total_tokens":1008,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":null}}}"#;

    fn passed(answer: &str, is_stream: bool, chunk: usize) -> String {
        let mut repair = Repair::new(768, is_stream);
        let mut out = Vec::new();
        for part in answer.as_bytes().chunks(chunk) {
            out.extend_from_slice(&repair.pass(&Bytes::copy_from_slice(part)));
        }
        out.extend_from_slice(&repair.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_stream_says_what_was_reused_however_it_is_cut() {
        let text = r#"data: {"choices":[{"delta":{"content":"\"usage\":{\"cached_tokens\":0}"}}]}"#;
        let answer = format!("{text}\n\n{LAST}\n\ndata: [DONE]\n\n");
        let want = answer.replace(r#"{"cached_tokens":0,"#, r#"{"cached_tokens":768,"#);
        for chunk in [1, 7, 64, 10_000] {
            assert_eq!(passed(&answer, true, chunk), want, "chunks of {chunk}");
        }
    }

    #[test]
    fn a_plain_answer_says_it_too_in_the_shapes_of_all_apis() {
        let long = "x".repeat(9_000);
        for (details, want) in [
            (
                r#""prompt_tokens_details":{"cached_tokens":0}"#,
                r#""prompt_tokens_details":{"cached_tokens":768}"#,
            ),
            (
                r#""input_tokens_details": {"cached_tokens": null}"#,
                r#""input_tokens_details": {"cached_tokens": 768}"#,
            ),
            (r#""cache_read_input_tokens":12"#, r#""cache_read_input_tokens":768"#),
            (r#""prompt_tokens_details":null"#, r#""prompt_tokens_details":null"#),
        ] {
            let answer = |details: &str| {
                format!(r#"{{"text":"{long}","usage":{{"prompt_tokens":1000,{details}}}}}"#)
            };
            for chunk in [100, 100_000] {
                assert_eq!(passed(&answer(details), false, chunk), answer(want), "{details}");
            }
        }
    }

    #[test]
    fn an_answer_without_usage_stays_as_it_is() {
        let answer = "data: {\"a\":1}\n\ndata: [DONE]\n\n: ping";
        assert_eq!(passed(answer, true, 5), answer);
        assert_eq!(passed(answer, false, 5), answer);
    }
}
