//! Chats as people's applications send them, of a wanted size.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::upstream::MODEL;

/// So many different chats take turns: enough that none is the only warm one.
const DIFFERENT: u64 = 32;
/// A turn of a long conversation, in bytes; shorter bodies have two turns or so.
const TURN_BYTES: usize = 3000;
const SYSTEM: &str = "You are a careful assistant. Answer in the language of the question, \
                      \"quote\" sources, and say when you are not sure.\nNo small talk.";
const WORDS: [&str; 24] = [
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "model",
    "request",
    "cache",
    "table",
    "river",
    "value",
    "function",
    "returns",
    "über",
    "naïve",
    "server",
    "line",
    "2026",
    "0.5",
    "error:",
    "(see",
    "above)",
    "therefore",
];

/// [`DIFFERENT`] bodies of `bytes` each, to within a word; the same at every call.
pub(super) fn chats(bytes: usize, stream: bool) -> Vec<Bytes> {
    (0..DIFFERENT).map(|seed| chat(seed, bytes, stream)).collect()
}

fn chat(seed: u64, bytes: usize, stream: bool) -> Bytes {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut messages = vec![json!({"role": "system", "content": SYSTEM})];
    // The keys and quotes around a turn take about 40 bytes.
    let mut left = bytes.saturating_sub(SYSTEM.len() + 160);
    for role in ["user", "assistant"].iter().cycle() {
        let turn = left.min(TURN_BYTES);
        messages.push(json!({"role": role, "content": prose(&mut rng, turn.saturating_sub(40))}));
        left -= turn;
        if left < 100 && *role == "user" {
            break;
        }
    }
    let body = json!({
        "model": MODEL,
        "stream": stream,
        "max_tokens": 200,
        "temperature": 0.7,
        "messages": messages,
    });
    Bytes::from(body.to_string())
}

fn prose(rng: &mut StdRng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.push_str(WORDS[rng.random_range(0..WORDS.len())]);
        text.push(if rng.random_ratio(1, 15) { '\n' } else { ' ' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::chats;

    #[test]
    fn a_body_has_the_wanted_size_and_differs_from_the_next() {
        for kib in [1, 32, 220, 450] {
            let bodies = chats(kib * 1024, true);
            assert_ne!(bodies[0], bodies[1]);
            let off = bodies[0].len().abs_diff(kib * 1024);
            assert!(off < 256 + kib * 10, "{kib} KiB: {} bytes", bodies[0].len());
        }
    }
}
