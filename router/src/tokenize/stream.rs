//! Ids to text deltas, one id at a time, never half a character.

use super::{TokenizeError, Tokenizer};

/// The longest run of ids that is held back in the hope of a whole character. One character is at
/// most 4 bytes and so at most 4 byte-level ids; text that is really broken must not wait for ever.
const MAX_HELD_IDS: usize = 8;

/// Turns a stream of ids into text deltas whose concatenation is the text of all ids.
///
/// An id may end inside a UTF-8 character; its text then waits for the ids that complete it. Ids
/// are decoded with the few before them, because a decoder may treat the first id differently
/// (Hugging Face and vLLM do the same).
#[derive(Debug, Default)]
pub struct TextStream {
    /// Ids since the last delta's beginning: decoded context, then ids not yet shown.
    window: Vec<u32>,
    /// How many ids of `window` have been shown.
    shown: usize,
}

// === impl TextStream ===

impl TextStream {
    /// A stream whose text continues no earlier text.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TokenizeError> {
        self.window.push(id);
        let held = self.window.len() - self.shown;
        self.take(tokenizer, held < MAX_HELD_IDS)
    }

    /// What is still held back, with U+FFFD for bytes that never became a character.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, TokenizeError> {
        self.take(tokenizer, false)
    }

    fn take(&mut self, tokenizer: &Tokenizer, may_wait: bool) -> Result<String, TokenizeError> {
        let before = tokenizer.decode_visible(&self.window[..self.shown])?;
        let after = tokenizer.decode_visible(&self.window)?;
        if may_wait && after.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let delta = after.get(before.len()..).unwrap_or_default().to_owned();
        self.window.drain(..self.shown);
        self.shown = self.window.len();
        Ok(delta)
    }
}
