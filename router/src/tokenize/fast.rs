//! `fastokens`, compared with `tokenizers` before it is used, and from time to time while it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::TokenizeError;
use super::encoder::{PROBES, reference_ids};

/// The fast library, beside the one that vLLM uses.
pub(super) struct Fast {
    library: fastokens::Tokenizer,
    reference: tokenizers::Tokenizer,
    /// Texts that were encoded.
    encoded: AtomicU64,
    /// It was caught with other ids, and is not used any more.
    has_differed: AtomicBool,
}

/// One encoding of so many is compared. With [`CHECKED_BYTES`] that costs 1.3 ms each, on average a
/// microsecond per text.
const CHECK_EVERY: u64 = 1024;

/// What is compared of a longer text: a piece of it, at a place that changes.
const CHECKED_BYTES: usize = 4096;

// === impl Fast ===

impl Fast {
    /// The fast library, or why it may not be used for this `tokenizer.json`.
    pub(super) fn proven(
        json: &[u8],
        reference: Box<tokenizers::Tokenizer>,
    ) -> Result<Self, (Box<tokenizers::Tokenizer>, String)> {
        match proven(json, &reference) {
            Ok(library) => Ok(Self::new(library, *reference)),
            Err(because) => Err((reference, because)),
        }
    }

    fn new(library: fastokens::Tokenizer, reference: tokenizers::Tokenizer) -> Self {
        let (encoded, has_differed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { library, reference, encoded, has_differed }
    }

    /// Whether it was caught with other ids: then everything comes from the reference.
    pub(super) fn has_differed(&self) -> bool {
        self.has_differed.load(Ordering::Relaxed)
    }

    pub(super) fn library(&self) -> Result<&fastokens::Tokenizer, &tokenizers::Tokenizer> {
        if self.has_differed() { Err(&self.reference) } else { Ok(&self.library) }
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, TokenizeError> {
        let number = self.encoded.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(CHECK_EVERY) && !self.has_differed() {
            self.check(piece(text, number));
        }
        if self.has_differed() {
            return reference_ids(&self.reference, text, specials);
        }
        fast_ids(&self.library, text, specials)
    }

    /// The text is a client's: it is not logged.
    fn check(&self, text: &str) {
        let theirs = reference_ids(&self.reference, text, false);
        let (Ok(ours), Ok(theirs)) = (fast_ids(&self.library, text, false), theirs) else { return };
        if ours != theirs {
            self.has_differed.store(true, Ordering::Relaxed);
            tracing::warn!(
                bytes = text.len(),
                "fastokens and tokenizers make different ids of a text: tokenizers from now on"
            );
        }
    }
}

/// A piece of a text that is not too long to compare.
fn piece(text: &str, number: u64) -> &str {
    let Some(spare) = text.len().checked_sub(CHECKED_BYTES) else { return text };
    // An odd number near the golden ratio of 2^64 spreads the places over the text.
    let place = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let start = (place * spare as u128) >> 64;
    let start = text.floor_char_boundary(usize::try_from(start).unwrap_or(0));
    &text[start..text.floor_char_boundary(start + CHECKED_BYTES)]
}

fn fast_ids(
    library: &fastokens::Tokenizer,
    text: &str,
    specials: bool,
) -> Result<Vec<u32>, TokenizeError> {
    library
        .encode_with_special_tokens(text, specials)
        .map_err(|error| TokenizeError::Encode(error.to_string()))
}

fn proven(json: &[u8], reference: &tokenizers::Tokenizer) -> Result<fastokens::Tokenizer, String> {
    let value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let fast = fastokens::Tokenizer::from_json(value).map_err(|error| error.to_string())?;
    for text in PROBES {
        for specials in [false, true] {
            let ours = fast_ids(&fast, text, specials)
                .map_err(|error| format!("fastokens fails on {text:?}: {error}"))?;
            let theirs =
                reference_ids(reference, text, specials).map_err(|error| error.to_string())?;
            if ours != theirs {
                return Err(format!("fastokens differs from tokenizers on {text:?}"));
            }
            for visible in [false, true] {
                if fast.decode(&ours, visible).ok() != reference.decode(&ours, visible).ok() {
                    return Err(format!("fastokens decodes {text:?} differently"));
                }
            }
        }
    }
    Ok(fast)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each letter is a token; the numbers are given.
    fn json(a: u32, b: u32) -> String {
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
            "normalizer":null,"pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,
            "trim_offsets":true,"use_regex":true}},"post_processor":null,
            "decoder":{{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,
            "use_regex":true}},"model":{{"type":"BPE","dropout":null,"unk_token":null,
            "continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,
            "byte_fallback":false,"vocab":{{"a":{a},"b":{b}}},"merges":[]}}}}"#
        )
    }

    fn both(ours: &str, theirs: &str) -> Fast {
        let ours = serde_json::from_str(ours).expect("it is JSON");
        let library = fastokens::Tokenizer::from_json(ours).expect("it is a tokenizer");
        let reference = tokenizers::Tokenizer::from_bytes(theirs).expect("it is a tokenizer");
        Fast::new(library, reference)
    }

    #[test]
    fn whoever_differs_once_is_not_asked_again() {
        let fast = both(&json(0, 1), &json(1, 0));
        assert_eq!(fast.encode("ab", false).expect("it encodes"), [1, 0], "the reference's");
        assert!(fast.has_differed());
        assert_eq!(fast.encode("ba", false).expect("it encodes"), [0, 1]);
    }

    #[test]
    fn one_text_of_many_is_compared() {
        let fast = both(&json(0, 1), &json(1, 0));
        fast.encoded.store(1, Ordering::Relaxed);
        for _ in 1..CHECK_EVERY {
            assert_eq!(fast.encode("ab", false).expect("it encodes"), [0, 1], "its own");
        }
        assert_eq!(fast.encode("ab", false).expect("it encodes"), [1, 0], "the reference's");
    }

    #[test]
    fn whoever_agrees_stays() {
        let fast = both(&json(0, 1), &json(0, 1));
        for _ in 0..=CHECK_EVERY {
            assert_eq!(fast.encode("ab", false).expect("it encodes"), [0, 1]);
        }
        assert!(!fast.has_differed());
    }

    #[test]
    fn a_piece_is_never_longer_and_never_cuts_a_character() {
        let text = "ü".repeat(CHECKED_BYTES);
        for number in 0..200 {
            let piece = piece(&text, number * CHECK_EVERY);
            assert!(piece.len() <= CHECKED_BYTES && piece.len() > CHECKED_BYTES - 2);
        }
        assert_eq!(piece("short", 7), "short");
    }
}
