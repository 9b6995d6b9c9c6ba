//! One tokenizer library behind one face: `fastokens` where it is proven equal, else `tokenizers`.
//!
//! fastokens is about 100 times faster (25,600 tokens in 0.27 ms against 32 ms), but a wrong id
//! would make every block hash wrong: it is compared at load, on [`PROBES`], with the library that
//! vLLM itself uses.

use super::TokenizeError;

/// Which library answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// `fastokens`, which agreed with `tokenizers` on every probe.
    Fastokens,
    /// `tokenizers`, and the reason why not the faster one.
    Tokenizers { because: String },
}

/// A loaded tokenizer.
pub(super) struct Encoder {
    library: Library,
    engine: Engine,
}

enum Library {
    Fast(Box<fastokens::Tokenizer>),
    Reference(Box<tokenizers::Tokenizer>),
}

/// Texts on which both libraries must agree: contractions, digits, whitespace runs, code, CJK,
/// combining marks, joined emoji, right-to-left, bytes outside the vocabulary, special tokens.
pub(super) const PROBES: &[&str] = &[
    "",
    " ",
    "Hello! What is 2+2?",
    "I'll say it'S 1234567 times, don't you THINK so?",
    "  leading, trailing  \n\n\n  and\ttabs\r\nand  runs   of    spaces\u{a0}\u{3000}",
    "fn main() { println!(\"{:?}\", vec![1_000, -2]); } // déjà vu",
    "Grüße aus Köln — 你好，世界。こんにちは 안녕하세요",
    "e\u{301} \u{212b} \u{fb01} ½ ² ﷺ",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "שלום עולם مرحبا بالعالم ไปเที่ยว",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>",
    "<|im_start|>system\nx<|im_end|>\n<|endoftext|><s></s><think>\n\n</think>",
    "zqxjkvb QZXJK _underscore_ CamelCaseWord http://example.org/a?b=c&d=%20",
];

// === impl Encoder ===

impl Encoder {
    pub(super) fn load(json: &[u8]) -> Result<Self, TokenizeError> {
        let reference = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| TokenizeError::Load(error.to_string()))?;
        match proven_fast(json, &reference) {
            Ok(fast) => {
                Ok(Self { library: Library::Fast(Box::new(fast)), engine: Engine::Fastokens })
            }
            Err(because) => Ok(Self {
                library: Library::Reference(Box::new(reference)),
                engine: Engine::Tokenizers { because },
            }),
        }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, TokenizeError> {
        match &self.library {
            Library::Fast(fast) => fast
                .encode_with_special_tokens(text, specials)
                .map_err(|error| TokenizeError::Encode(error.to_string())),
            Library::Reference(reference) => reference_ids(reference, text, specials),
        }
    }

    pub(super) fn decode(&self, ids: &[u32], visible: bool) -> Result<String, TokenizeError> {
        match &self.library {
            Library::Fast(fast) => fast.decode(ids, visible).map_err(|error| error.to_string()),
            Library::Reference(reference) => {
                reference.decode(ids, visible).map_err(|error| error.to_string())
            }
        }
        .map_err(TokenizeError::Decode)
    }

    pub(super) fn token(&self, id: u32) -> Option<String> {
        match &self.library {
            Library::Fast(fast) => fast.id_to_token(id).map(str::to_owned),
            Library::Reference(reference) => reference.id_to_token(id),
        }
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        match &self.library {
            Library::Fast(fast) => fast.token_to_id(token),
            Library::Reference(reference) => reference.token_to_id(token),
        }
    }

    pub(super) fn vocabulary_size(&self) -> usize {
        match &self.library {
            Library::Fast(fast) => fast.vocab_size(),
            Library::Reference(reference) => reference.get_vocab_size(true),
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// The fast library, or why it may not be used for this `tokenizer.json`.
fn proven_fast(
    json: &[u8],
    reference: &tokenizers::Tokenizer,
) -> Result<fastokens::Tokenizer, String> {
    let value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let fast = fastokens::Tokenizer::from_json(value).map_err(|error| error.to_string())?;
    for text in PROBES {
        for specials in [false, true] {
            let ours = fast
                .encode_with_special_tokens(text, specials)
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

fn reference_ids(
    reference: &tokenizers::Tokenizer,
    text: &str,
    specials: bool,
) -> Result<Vec<u32>, TokenizeError> {
    reference
        .encode_fast(text, specials)
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|error| TokenizeError::Encode(error.to_string()))
}
