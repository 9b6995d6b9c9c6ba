//! Where a text may be cut in two so that the ids of the halves are the ids of the whole.
//!
//! There are two such places. **After a special token**: text between special tokens goes through
//! normaliser, pre-tokenizer and model on its own, so the place is certain as long as the token
//! cannot be part of, or overlap, another. **Between words**, if the pre-tokenizer's pattern is one
//! of [`PATTERNS`]: none of them matches across the space before a word or the line break before a
//! line, none looks back, and the only lookahead (`\s+(?!\S)`) sees the same on both sides of such
//! a place.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::Deserialize;
use serde_json::Value;

/// Where the texts of one tokenizer may be cut.
#[derive(Debug)]
pub(super) struct Cuts {
    /// Special tokens after which a cut is certain.
    specials: Option<AhoCorasick>,
    /// Whether words may be cut apart.
    words: bool,
}

/// An entry of `added_tokens` in `tokenizer.json`.
#[derive(Debug, Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

/// Pre-tokenizer patterns whose words may be cut apart: those of Llama 3 (and cl100k), Qwen 2 and 3,
/// Qwen 3.5, and GPT-4o. (GPT-2's is what `ByteLevel` does with `use_regex`.)
const PATTERNS: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Pre-tokenizers that treat each stretch between special tokens alike, wherever it stands.
const LOCAL: &[&str] = &[
    "BertPreTokenizer",
    "ByteLevel",
    "Digits",
    "Punctuation",
    "Split",
    "UnicodeScripts",
    "Whitespace",
    "WhitespaceSplit",
];

// === impl Cuts ===

impl Cuts {
    /// What a `tokenizer.json` allows; none if no place is certain.
    pub(super) fn of(tokenizer: &Value) -> Option<Self> {
        let added = tokenizer.get("added_tokens").cloned().unwrap_or_default();
        let added: Vec<Added> = serde_json::from_value(added).unwrap_or_default();
        let steps = steps(&tokenizer["pre_tokenizer"]);
        if !steps.iter().all(|step| is_local(step)) || added.iter().any(|it| it.single_word) {
            return None;
        }
        let words = steps.iter().all(|step| keeps_words(step))
            && steps.iter().any(|step| splits_words(step))
            && matches!(tokenizer["normalizer"]["type"].as_str(), None | Some("NFC"))
            && !added.iter().any(|it| it.lstrip || it.rstrip || it.content.contains(is_space));
        let certain = certain(&added);
        let specials = (!certain.is_empty()).then(|| {
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&certain).ok()
        });
        let specials = specials.flatten();
        (words || specials.is_some()).then_some(Self { specials, words })
    }

    /// Cuts `text` wherever that is certain, but into pieces of at least `least_bytes`. What comes
    /// after the last cut is the last piece, whatever its length.
    ///
    /// A text that goes on where another ended is cut where that one was.
    pub(super) fn pieces<'a>(
        &'a self,
        text: &'a str,
        least_bytes: usize,
    ) -> impl Iterator<Item = &'a str> {
        let (mut begin, mut special) = (0, Some(0));
        std::iter::from_fn(move || {
            if begin == text.len() {
                return None;
            }
            let from = begin + least_bytes.max(1);
            if special.is_some_and(|end| end < from) {
                special = self.after_special(text, from);
            }
            let word = if self.words { before_word(text, from, special) } else { None };
            let end = word.or(special).unwrap_or(text.len());
            Some(&text[std::mem::replace(&mut begin, end)..end])
        })
    }

    /// The first end, at or after `from`, of a special token; it may begin a little before.
    fn after_special(&self, text: &str, from: usize) -> Option<usize> {
        let specials = self.specials.as_ref()?;
        let before = from.saturating_sub(specials.max_pattern_len());
        let found = specials.find_iter(text.as_bytes().get(before..)?);
        found.map(|found| before + found.end()).find(|end| *end >= from)
    }
}

/// The first place at or after `from`, and before `limit`, where words part: before the space that
/// a word begins with, or after the line break that a line begins after.
fn before_word(text: &str, from: usize, limit: Option<usize>) -> Option<usize> {
    let bytes = text.as_bytes();
    let limit = limit.unwrap_or(bytes.len());
    let begin = from.max(2) - 1;
    let breaks = memchr::memchr2_iter(b' ', b'\n', bytes.get(begin..limit)?);
    breaks.map(|at| begin + at).find_map(|at| {
        let ends = ends_plainly(&bytes[..at]);
        let goes_on = begins_plainly(&bytes[at + 1..]);
        let cut = if bytes[at] == b' ' { at } else { at + 1 };
        (ends && goes_on && cut >= from).then_some(cut)
    })
}

/// Whether the last byte is an ASCII character that is neither space nor control.
fn ends_plainly(text: &[u8]) -> bool {
    text.last().is_some_and(u8::is_ascii_graphic) || ends_in_letter(text)
}

/// Whether the text begins with a letter (ASCII, Cyrillic, kana, Han or Hangul: enough that prose
/// in most scripts has places).
fn begins_plainly(text: &[u8]) -> bool {
    match text {
        [first, ..] if first.is_ascii() => first.is_ascii_alphabetic(),
        [0xd0, 0x90..=0xbf, ..] | [0xd1, 0x80..=0x8f, ..] => true,
        [first @ 0xe3..=0xed, second, third, ..] => is_letter(*first, *second, *third),
        _ => false,
    }
}

fn ends_in_letter(text: &[u8]) -> bool {
    match text {
        [.., 0xd0, 0x90..=0xbf] | [.., 0xd1, 0x80..=0x8f] => true,
        [.., first @ 0xe3..=0xed, second, third] => is_letter(*first, *second, *third),
        _ => false,
    }
}

/// Hiragana and katakana without their marks, CJK ideographs, Hangul syllables: all of them
/// `\p{L}`.
fn is_letter(first: u8, second: u8, third: u8) -> bool {
    let code =
        u32::from(first & 0x0f) << 12 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f);
    matches!(code, 0x3041..=0x3096 | 0x30a1..=0x30fa | 0x4e00..=0x9fa5 | 0xac00..=0xd7a3)
}

fn is_space(character: char) -> bool {
    character.is_whitespace()
}

/// The pre-tokenizers, one after the other.
fn steps(pre_tokenizer: &Value) -> Vec<&Value> {
    match pre_tokenizer["type"].as_str() {
        None => Vec::new(),
        Some("Sequence") => pre_tokenizer["pretokenizers"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(steps)
            .collect(),
        Some(_) => vec![pre_tokenizer],
    }
}

fn is_local(step: &Value) -> bool {
    step["type"].as_str().is_some_and(|name| LOCAL.contains(&name))
}

/// Whether this step leaves a place between words alone.
fn keeps_words(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("ByteLevel") => step["add_prefix_space"] == Value::Bool(false),
        Some("Digits") => true,
        Some("Split") => splits_words(step),
        _ => false,
    }
}

/// Whether this step parts words, so that the model never sees two at once.
fn splits_words(step: &Value) -> bool {
    match step["type"].as_str() {
        Some("ByteLevel") => step["use_regex"] != Value::Bool(false),
        Some("Split") => {
            step["behavior"] == "Isolated"
                && step["invert"] != Value::Bool(true)
                && step["pattern"]["Regex"].as_str().is_some_and(|it| PATTERNS.contains(&it))
        }
        _ => false,
    }
}

/// Special tokens that are what they are wherever they stand: found in the raw text, taking no
/// white space with them, and never overlapping another token or themselves.
fn certain(added: &[Added]) -> Vec<&str> {
    let is_plain = |it: &&Added| {
        let takes_more = it.normalized || it.lstrip || it.rstrip;
        let content = it.content.as_str();
        !takes_more && !content.is_empty() && content.trim() == content
    };
    let overlaps = |it: &Added| {
        added.iter().any(|other| {
            let is_other = !std::ptr::eq(it, other);
            let (this, that) = (it.content.as_bytes(), other.content.as_bytes());
            (is_other && other.content.contains(&it.content))
                || (1..this.len().min(that.len()))
                    .any(|bytes| this.ends_with(&that[..bytes]) || that.ends_with(&this[..bytes]))
        })
    };
    added.iter().filter(is_plain).filter(|it| !overlaps(it)).map(|it| it.content.as_str()).collect()
}
