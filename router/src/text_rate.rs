//! How many bytes of prompt text make a token, learned per model from the pods' own counts.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// Bytes per token of the models that we have no tokenizer for.
#[derive(Debug, Default)]
pub(crate) struct TextRates {
    by_model: RwLock<HashMap<Arc<str>, f64>>,
}

/// English prose, until a pod has counted.
const FIRST_GUESS: f64 = 4.0;

/// From one byte per token (every byte a token of its own) to text that is mostly long words.
const RANGE: (f64, f64) = (1.0, 16.0);

/// Shorter prompts are mostly template, which is not in the text that we see.
const LEARN_FROM_BYTES: u32 = 1024;

/// Weight of the newest observation.
const LEARN_WEIGHT: f64 = 0.1;

// === impl TextRates ===

impl TextRates {
    /// Bytes per token.
    pub(crate) fn get(&self, model: &str) -> f64 {
        self.by_model.read().get(model).copied().unwrap_or(FIRST_GUESS)
    }

    /// A pod counted so many tokens in so many bytes.
    pub(crate) fn learn(&self, model: &Arc<str>, bytes: u32, tokens: u32) {
        if bytes < LEARN_FROM_BYTES || tokens == 0 {
            return;
        }
        let seen = (f64::from(bytes) / f64::from(tokens)).clamp(RANGE.0, RANGE.1);
        let mut by_model = self.by_model.write();
        // The first count replaces the guess; later ones correct it.
        let rate = by_model.entry(Arc::clone(model)).or_insert(seen);
        *rate += LEARN_WEIGHT * (seen - *rate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_count_replaces_the_guess_and_later_ones_correct_it() {
        let (rates, model) = (TextRates::default(), Arc::from("m"));
        rates.learn(&model, 100, 10);
        assert!((rates.get("m") - 4.0).abs() < 1e-9, "a short prompt says nothing");
        rates.learn(&model, 6_000, 1_000);
        assert!((rates.get("m") - 6.0).abs() < 1e-9);
        rates.learn(&model, 16_000, 1_000);
        assert!((rates.get("m") - 7.0).abs() < 1e-9);
    }
}
