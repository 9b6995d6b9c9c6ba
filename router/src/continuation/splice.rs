//! Looking into events without parsing them.
//!
//! vLLM writes JSON without spaces, and inside a JSON string a quote is escaped: `"token_ids":[` is
//! found in an event only where it is a key. So a search is enough, at some 10 GB/s, where parsing
//! every token's event would cost more than carrying it.

use std::ops::Range;

use memchr::{memchr, memchr2, memmem};

use crate::openai::Api;

/// Keys whose string value is a piece of an answer. `"text"` is a completion's; `"delta"` that of a
/// response; `"partial_json"` and `"thinking"` are Anthropic's.
const TEXTS: [&[u8]; 8] = [
    b"\"content\"",
    b"\"text\"",
    b"\"reasoning_content\"",
    b"\"reasoning\"",
    b"\"arguments\"",
    b"\"delta\"",
    b"\"partial_json\"",
    b"\"thinking\"",
];

/// Whether an event carries text of the answer: its shape in the four streaming APIs. Here spaces are
/// put up with, since a stream is held back until it shows some: a pod that is not vLLM, or something
/// between it and us, may write them.
#[must_use]
pub fn shows_text(data: &[u8]) -> bool {
    TEXTS
        .iter()
        .any(|key| memmem::find_iter(data, key).any(|at| is_before_text(&data[at + key.len()..])))
}

/// Whether a colon and a string with something in it follow.
fn is_before_text(rest: &[u8]) -> bool {
    let value = rest.trim_ascii_start().strip_prefix(b":").map(<[u8]>::trim_ascii_start);
    matches!(value, Some([b'"', first, ..]) if *first != b'"')
}

/// The same of an answer of this API: one of token ids may have no text.
#[must_use]
pub fn shows_answer(api: Api, data: &[u8]) -> bool {
    const IDS: &[u8] = b"\"token_ids\":[";
    let ids = || memmem::find(data, IDS).and_then(|at| data.get(at + IDS.len()));
    shows_text(data) || (api == Api::Generate && ids().is_some_and(u8::is_ascii_digit))
}

/// What an event says; none for a comment. A name may stand before it.
pub(super) fn data(event: &[u8]) -> Option<&[u8]> {
    let data = match event.strip_prefix(b"data:") {
        Some(data) => data,
        None => &event[memmem::find(event, b"\ndata:")? + b"\ndata:".len()..],
    };
    Some(data.trim_ascii())
}

/// Whether a key is there.
pub(super) fn has(data: &[u8], key: &[u8]) -> bool {
    memmem::find(data, key).is_some()
}

/// The first string value of a key that ends with `":"`, as it is spelled, without its quotes.
pub(super) fn string<'a>(data: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let start = memmem::find(data, key)? + key.len();
    let mut at = start;
    loop {
        at += memchr2(b'"', b'\\', data.get(at..)?)?;
        if data[at] == b'"' {
            return Some(&data[start..at]);
        }
        at += 2;
    }
}

/// Where the list of numbers of a key that ends with `:[` stands, brackets included.
pub(super) fn list(data: &[u8], key: &[u8]) -> Option<Range<usize>> {
    let open = memmem::find(data, key)? + key.len() - 1;
    let length = memchr(b']', &data[open..])?;
    Some(open..open + length + 1)
}

/// Appends the numbers of such a list; false if it is not one of ids.
pub(super) fn ids(list: &[u8], out: &mut Vec<u32>) -> bool {
    let inner = list.strip_prefix(b"[").and_then(|list| list.strip_suffix(b"]"));
    let Some(inner) = inner.map(<[u8]>::trim_ascii) else { return false };
    if inner.is_empty() {
        return true;
    }
    inner.split(|byte| *byte == b',').all(|digits| match number(digits.trim_ascii()) {
        Some(id) => {
            out.push(id);
            true
        }
        None => false,
    })
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Appends what a spelled string means; false if it is not one.
pub(super) fn meaning(spelled: &[u8], out: &mut String) -> bool {
    if memchr(b'\\', spelled).is_none() {
        return std::str::from_utf8(spelled).map(|text| out.push_str(text)).is_ok();
    }
    let quoted = [b"\"", spelled, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map(|text| out.push_str(&text)).is_ok()
}

/// Appends an event with `null` where these lists stand, in whatever order: what the pod says of ids
/// when it is not asked.
pub(super) fn without_lists(event: &[u8], mut lists: Vec<Range<usize>>, out: &mut Vec<u8>) {
    lists.sort_unstable_by_key(|list| list.start);
    let mut from = 0;
    for list in lists {
        // One inside another is gone with it.
        let Some(before) = event.get(from..list.start) else { continue };
        out.extend_from_slice(before);
        out.extend_from_slice(b"null");
        from = list.end;
    }
    out.extend_from_slice(event.get(from..).unwrap_or_default());
}

/// The request's body with `return_token_ids`, whatever it said of it: of two members with one name
/// the pod takes the last.
#[must_use]
pub fn asking_for_ids(body: &[u8]) -> Vec<u8> {
    let end = memchr::memrchr(b'}', body).unwrap_or(body.len());
    let is_empty = body[..end].trim_ascii_end().ends_with(b"{");
    let comma: &[u8] = if is_empty { b"" } else { b"," };
    [&body[..end], comma, b"\"return_token_ids\":true", &body[end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_seen_however_the_json_is_spaced_and_empty_strings_are_none() {
        for (event, shows) in [
            (r#"{"choices":[{"delta":{"content":"x"}}]}"#, true),
            (r#"{"choices": [{"delta": {"content": "x"}}]}"#, true),
            ("{\"choices\" : [ { \"text\" :\n\"x\" } ] }", true),
            (r#"{"choices": [{"delta": {"role": "assistant", "content": ""}}]}"#, false),
            (r#"{"choices":[{"delta":{"content":null}}]}"#, false),
            (r#"{"type": "content", "x": "\"content\": \"y\""}"#, false),
        ] {
            assert_eq!(shows_text(event.as_bytes()), shows, "{event}");
        }
    }
}
