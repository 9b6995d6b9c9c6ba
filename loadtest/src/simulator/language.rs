//! What a simulated model says: readable words, a pure function of everything before them.
//!
//! Because the next token depends on the whole context and on nothing else, the same prompt always
//! gets the same answer, and an answer cut on one pod goes on unchanged on another that is given
//! the prompt and the tokens so far: what greedy decoding does on real pods.

use router::tokenize::{TokenizeError, Tokenizer};

/// The embedded word list; words that are one token become the model's vocabulary.
const WORDS: &str = include_str!("../../assets/tokenizer/words.txt");

/// First words of an answer, and of the sentences in it.
const OPENERS: &str = "The This A When If It We You They In On For How What Good Sometimes Then So";

/// Mean sentence length in tokens.
const MEAN_SENTENCE_TOKENS: u64 = 12;

/// Characters of several bytes, most of them several tokens: an answer may be cut inside one.
const PICTURES: &str = "🙂 🚀 🌍 ✅ 🎉 é 漢 👩‍🚀";

/// Mean number of tokens between two of them.
const MEAN_PICTURE_TOKENS: u64 = 24;

/// The most tokens of one picture: 11 bytes and a space.
const MAX_PICTURE_TOKENS: usize = 12;

/// End-of-answer tokens of the usual model families; the first one that exists is used.
const ENDS: &[&str] = &["<|eot_id|>", "<|im_end|>", "</s>", "<|endoftext|>", "<|end_of_text|>"];

/// A model's way of speaking.
#[derive(Debug)]
pub struct Language {
    /// Words that begin an answer (no space before them).
    openers: Vec<u32>,
    /// Words that begin a later sentence.
    sentence_openers: Vec<u32>,
    words: Vec<u32>,
    full_stop: Option<u32>,
    /// Each with a space before it, as tokens.
    pictures: Vec<Vec<u32>>,
    end: Option<u32>,
}

/// A running hash over the context, from which the next token is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    hash: u64,
    last: u32,
    /// The last tokens, the newest at the end.
    tail: [u32; MAX_PICTURE_TOKENS],
}

// === impl Language ===

impl Language {
    /// Finds the words that are one token each.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, TokenizeError> {
        let single = |text: &str| -> Result<Option<u32>, TokenizeError> {
            let ids = tokenizer.encode(text)?;
            Ok(if let [id] = ids[..] { Some(id) } else { None })
        };
        let all = |list: &str, space: &str| -> Result<Vec<u32>, TokenizeError> {
            let ids = list.split_whitespace().map(|word| single(&format!("{space}{word}")));
            ids.filter_map(Result::transpose).collect()
        };
        let mut words = all(WORDS, " ")?;
        if words.is_empty() {
            words = tokenizer.encode(WORDS)?;
        }
        let pictures = PICTURES.split(' ').map(|picture| tokenizer.encode(&format!(" {picture}")));
        let mut pictures = pictures.collect::<Result<Vec<_>, _>>()?;
        pictures.retain(|picture| picture.len() <= MAX_PICTURE_TOKENS);
        Ok(Self {
            pictures,
            openers: all(OPENERS, "")?,
            sentence_openers: all(OPENERS, " ")?,
            words,
            full_stop: single(".")?,
            end: ENDS.iter().find_map(|end| tokenizer.id(end)),
        })
    }

    /// The token that ends an answer.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The next token. `noise` is 0 for greedy decoding, else a seed.
    pub fn next(&self, context: Context, noise: u64, may_end: bool) -> u32 {
        let draw = hasher().hash_one((context.hash, noise));
        let pick = |list: &[u32]| {
            let at = (draw >> 16) % list.len().max(1) as u64;
            list.get(usize::try_from(at).ok()?).copied()
        };
        if let Some(rest) = self.rest_of_picture(context, draw) {
            return rest;
        }
        let after_word = self.words.contains(&context.last) || self.ends_picture(context);
        let chosen = if after_word && (draw >> 8).is_multiple_of(MEAN_PICTURE_TOKENS) {
            self.picture(draw).map(|picture| picture[0])
        } else if self.full_stop == Some(context.last) {
            self.end.filter(|_| may_end && draw.is_multiple_of(5)).or(pick(&self.sentence_openers))
        } else if !after_word && !self.sentence_openers.contains(&context.last) {
            pick(&self.openers).filter(|_| !self.openers.contains(&context.last))
        } else if after_word && draw.is_multiple_of(MEAN_SENTENCE_TOKENS) {
            self.full_stop
        } else {
            None
        };
        chosen.or_else(|| pick(&self.words)).unwrap_or_default()
    }

    fn picture(&self, draw: u64) -> Option<&[u32]> {
        let at = (draw >> 16) % self.pictures.len().max(1) as u64;
        self.pictures.get(usize::try_from(at).ok()?).map(Vec::as_slice)
    }

    /// The next token of the picture that the context ends inside of. Where pictures begin alike,
    /// any of them may come of it.
    fn rest_of_picture(&self, context: Context, draw: u64) -> Option<u32> {
        for begun in (1..MAX_PICTURE_TOKENS).rev() {
            let end = &context.tail[MAX_PICTURE_TOKENS - begun..];
            let fits = |picture: &&Vec<u32>| picture.len() > begun && picture[..begun] == *end;
            let count = self.pictures.iter().filter(fits).count();
            if count > 0 {
                let at = usize::try_from((draw >> 16) % count as u64).ok()?;
                return self.pictures.iter().filter(fits).nth(at).map(|picture| picture[begun]);
            }
        }
        None
    }

    fn ends_picture(&self, context: Context) -> bool {
        self.pictures.iter().any(|picture| context.tail.ends_with(picture))
    }
}

// === impl Context ===

impl Context {
    /// The context of a prompt.
    pub fn of(tokens: &[u32]) -> Self {
        let none = Self { hash: 0, last: u32::MAX, tail: [u32::MAX; MAX_PICTURE_TOKENS] };
        tokens.iter().fold(none, |context, token| context.then(*token))
    }

    /// The context after one more token.
    pub fn then(self, token: u32) -> Self {
        let mut tail = self.tail;
        tail.rotate_left(1);
        tail[MAX_PICTURE_TOKENS - 1] = token;
        Self { hash: hasher().hash_one((self.hash, token)), last: token, tail }
    }

    /// The context as a model sees it whose KV is not that of these tokens
    /// ([`super::cache::Chain::taint`]).
    #[must_use]
    pub fn tainted(self, taint: u64) -> Self {
        match taint {
            0 => self,
            taint => Self { hash: hasher().hash_one((self.hash, taint)), ..self },
        }
    }
}

fn hasher() -> ahash::RandomState {
    ahash::RandomState::with_seeds(5, 6, 7, 8)
}
