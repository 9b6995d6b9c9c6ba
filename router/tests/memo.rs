//! The memo of pieces changes no ids, for the committed tokenizer under the pre-tokenizers and
//! normalisers of several families, and finds what a conversation repeats.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use proptest::prelude::*;
use router::tokenize::{ChatRequest, Memo, Tokenizer};
use serde_json::{Value, json};

/// `[^\s\p{L}\p{N}]` and the rest of Qwen's pattern: one digit at a time, after NFC.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn asset(name: &str) -> Vec<u8> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/assets/tokenizer");
    std::fs::read(assets.join(name)).expect("the asset is committed")
}

/// The committed tokenizer, changed.
fn tokenizer(change: impl FnOnce(&mut Value)) -> Tokenizer {
    let mut json: Value = serde_json::from_slice(&asset("tokenizer.json")).expect("JSON");
    change(&mut json);
    let template = String::from_utf8(asset("chat_template.jinja")).expect("UTF-8");
    Tokenizer::from_bytes(json.to_string().as_bytes(), Some(&template), b"{}").expect("it loads")
}

fn llama() -> Tokenizer {
    tokenizer(|_| {})
}

fn qwen() -> Tokenizer {
    tokenizer(|json| {
        json["normalizer"] = json!({"type": "NFC"});
        json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = QWEN.into();
    })
}

fn gpt2() -> Tokenizer {
    tokenizer(|json| {
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
        json["pre_tokenizer"] = byte_level;
    })
}

/// A pattern that nobody knows: only special tokens part its texts.
fn unknown() -> Tokenizer {
    tokenizer(|json| {
        json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+ \w+|.".into();
    })
}

/// Texts made of what is hard about boundaries, long enough for many pieces.
fn texts() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|",
        "|>",
        "<|",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\n\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "'",
        "'s",
        "'S ",
        "1",
        "2345 ",
        "½",
        "e\u{301}",
        "\u{301}",
        "你好",
        "。",
        "かな",
        "가",
        "\u{11a8}",
        "привет",
        "й",
        "👩‍👩‍👧",
        "a",
        "B",
        "The",
        " The",
        "/",
        "!\n",
        "...",
        "_",
        "\u{0}",
    ]);
    let words = "[a-zA-Z ,.\n]{0,40}";
    prop::collection::vec(prop_oneof![3 => bits.prop_map(str::to_owned), 1 => words], 0..600)
        .prop_map(|bits| bits.concat())
}

/// A failing text is too long to keep in a file: it is printed.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() }
}

/// Encodes growing prefixes of `text` with a memo, and compares each with the ids from scratch.
fn assert_same(
    fresh: &Tokenizer,
    remembering: &Tokenizer,
    text: &str,
    splits: &[usize],
) -> Result<(), TestCaseError> {
    let mut ends: Vec<usize> =
        splits.iter().map(|at| text.floor_char_boundary(at % (text.len() + 1))).collect();
    ends.sort_unstable();
    for end in ends.into_iter().chain([text.len(), text.len()]) {
        let text = &text[..end];
        let (ids, want) = (remembering.encode(text), fresh.encode(text));
        prop_assert_eq!(ids.expect("encodes"), want.expect("encodes"));
        let ids = remembering.encode_with_specials(text);
        prop_assert_eq!(ids.expect("encodes"), fresh.encode_with_specials(text).expect("encodes"));
    }
    Ok(())
}

macro_rules! the_same_ids {
    ($($name:ident),*) => {$(
        proptest! {
            #![proptest_config(config())]
            #[test]
            fn $name(texts in prop::collection::vec((texts(), any::<[usize; 3]>()), 3)) {
                static FRESH: LazyLock<Tokenizer> = LazyLock::new(super::$name);
                static REMEMBERING: LazyLock<Tokenizer> =
                    LazyLock::new(|| super::$name().with_memo(Arc::new(Memo::new(1 << 20))));
                prop_assert!(REMEMBERING.remembers());
                for (text, splits) in &texts {
                    assert_same(&FRESH, &REMEMBERING, text, splits)?;
                }
            }
        }
    )*};
}

mod ids_are_those_from_scratch_under_the_pattern_of {
    use super::*;
    the_same_ids!(llama, qwen, gpt2, unknown);
}

#[test]
fn a_tokenizer_whose_words_depend_on_their_place_gets_no_memo() {
    let changed = |change: fn(&mut Value)| tokenizer(change).with_memo(Arc::default()).remembers();
    assert!(!changed(|json| json["added_tokens"][0]["single_word"] = true.into()));
    assert!(!changed(|json| {
        json["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"});
    }));
}

#[test]
fn the_next_turn_makes_only_what_is_new() {
    let memo = Arc::new(Memo::default());
    let tokenizer = llama().with_memo(Arc::clone(&memo));
    let mut messages = Vec::new();
    let line = |n: usize| format!("Turn {n}: the quick brown fox jumps over a lazy dog.\n");
    for turn in 0..40 {
        let content: String = (0..20).map(|n| line(turn * 20 + n)).collect();
        messages.push(json!({"role": "user", "content": content}));
        messages.push(json!({"role": "assistant", "content": "As you say."}));
        let before = memo.report();
        let messages = Value::from(messages.clone());
        let request = ChatRequest::new(&messages, Timestamp::UNIX_EPOCH);
        let ids = tokenizer.chat_tokens(&request).expect("it renders").len() as u64;
        let after = memo.report();
        let made = after.made_tokens - before.made_tokens;
        assert_eq!(made + after.found_tokens - before.found_tokens, ids);
        let turn_tokens = ids / (turn as u64 + 1);
        assert!(turn == 0 || made < 3 * turn_tokens, "turn {turn}: made {made} of {ids}");
    }
    assert!(memo.report().bytes > 0);
}
