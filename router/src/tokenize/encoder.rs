//! One tokenizer library behind one face: `fastokens` where it is proven equal, else `tokenizers`.
//!
//! fastokens is about 100 times faster (25,600 tokens in 0.27 ms against 32 ms), but a wrong id
//! would make every block hash wrong: it is compared at load, on [`PROBES`], and from then on now and
//! then, with the library that vLLM itself uses.

use super::TokenizeError;
use super::fast::Fast;

/// Which library answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// `fastokens`, which agreed with `tokenizers` on every probe.
    Fastokens,
    /// `tokenizers`, and the reason why not the faster one.
    Tokenizers { because: String },
}

/// A loaded tokenizer.
pub(super) enum Encoder {
    Fast(Box<Fast>),
    /// And why not the faster one.
    Reference(Box<tokenizers::Tokenizer>, String),
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
        Ok(match Fast::proven(json, Box::new(reference)) {
            Ok(fast) => Self::Fast(Box::new(fast)),
            Err((reference, because)) => Self::Reference(reference, because),
        })
    }

    pub(super) fn engine(&self) -> Engine {
        match self {
            Self::Fast(fast) if fast.has_differed() => {
                let because = "fastokens differed from tokenizers on a text".to_owned();
                Engine::Tokenizers { because }
            }
            Self::Fast(_) => Engine::Fastokens,
            Self::Reference(_, because) => Engine::Tokenizers { because: because.clone() },
        }
    }

    /// Whether ids that it made before may be wrong.
    pub(super) fn has_differed(&self) -> bool {
        matches!(self, Self::Fast(fast) if fast.has_differed())
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>, TokenizeError> {
        match self {
            Self::Fast(fast) => fast.encode(text, specials),
            Self::Reference(reference, _) => reference_ids(reference, text, specials),
        }
    }

    pub(super) fn decode(&self, ids: &[u32], visible: bool) -> Result<String, TokenizeError> {
        match self.library() {
            Ok(fast) => fast.decode(ids, visible).map_err(|error| error.to_string()),
            Err(reference) => reference.decode(ids, visible).map_err(|error| error.to_string()),
        }
        .map_err(TokenizeError::Decode)
    }

    pub(super) fn token(&self, id: u32) -> Option<String> {
        match self.library() {
            Ok(fast) => fast.id_to_token(id).map(str::to_owned),
            Err(reference) => reference.id_to_token(id),
        }
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        match self.library() {
            Ok(fast) => fast.token_to_id(token),
            Err(reference) => reference.token_to_id(token),
        }
    }

    pub(super) fn vocabulary_size(&self) -> usize {
        match self.library() {
            Ok(fast) => fast.vocab_size(),
            Err(reference) => reference.get_vocab_size(true),
        }
    }

    /// The library in use: the fast one, or the reference.
    fn library(&self) -> Result<&fastokens::Tokenizer, &tokenizers::Tokenizer> {
        match self {
            Self::Fast(fast) => fast.library(),
            Self::Reference(reference, _) => Err(reference),
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

pub(super) fn reference_ids(
    reference: &tokenizers::Tokenizer,
    text: &str,
    specials: bool,
) -> Result<Vec<u32>, TokenizeError> {
    reference
        .encode_fast(text, specials)
        .map(|encoding| encoding.get_ids().to_vec())
        .map_err(|error| TokenizeError::Encode(error.to_string()))
}
