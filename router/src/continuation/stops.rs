//! Stop strings across a cut.
//!
//! A pod looks for them in its own text alone. A pod that goes on cannot see the beginning of one
//! that the last pod made, so we look ourselves. vLLM holds back what may begin a stop string,
//! unless the string is part of the answer (`include_stop_str_in_output`); so do we.

/// Looks for stop strings in a text that comes in pieces.
#[derive(Clone, Debug)]
pub(super) struct Stops {
    stops: Vec<String>,
    includes: bool,
    /// The end of the text so far.
    window: String,
    /// Bytes at its beginning that went out.
    out: usize,
}

// === impl Stops ===

impl Stops {
    /// Begins after `sent`, which went out.
    pub(super) fn after(sent: &str, stops: &[String], includes: bool) -> Self {
        let window = sent.to_owned();
        let mut new = Self { stops: stops.to_vec(), includes, out: window.len(), window };
        new.forget();
        new
    }

    /// What goes out now that this text has come, and by which string the answer ends with it.
    pub(super) fn push(&mut self, text: &str) -> (String, Option<String>) {
        let before = self.window.len();
        self.window.push_str(text);
        for stop in &self.stops {
            let mut found = self.window.match_indices(stop.as_str());
            // One that ends in what was there before would have ended the answer before.
            let found = found.find(|(at, _)| at + stop.len() > before);
            let Some((at, _)) = found else { continue };
            let end = if self.includes { at + stop.len() } else { at };
            let rest = self.window.get(self.out..end).unwrap_or_default().to_owned();
            return (rest, Some(stop.clone()));
        }
        let end = if self.includes { self.window.len() } else { self.kept().max(self.out) };
        let rest = self.window[self.out..end].to_owned();
        self.out = end;
        self.forget();
        (rest, None)
    }

    /// What was held back: the text has ended.
    pub(super) fn finish(&mut self) -> String {
        let rest = self.window.split_off(self.out);
        self.window.clear();
        self.out = 0;
        rest
    }

    /// Where the last characters begin that may be the beginning of a stop string.
    fn kept(&self) -> usize {
        let longest = self.stops.iter().map(|stop| stop.chars().count()).max().unwrap_or(1);
        match longest.saturating_sub(1) {
            0 => self.window.len(),
            keep => self.window.char_indices().rev().nth(keep - 1).map_or(0, |(at, _)| at),
        }
    }

    fn forget(&mut self) {
        let gone = self.kept().min(self.out);
        self.window.drain(..gone);
        self.out -= gone;
    }
}
