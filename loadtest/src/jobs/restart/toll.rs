//! What clients saw of a restart.

use crate::client::{Answer, Failure};

/// Requests by what their clients saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Toll {
    /// Whole answers with the right bytes.
    pub ok: u64,
    /// No head of an answer, or an error instead of one.
    pub failed: u64,
    /// An answer that ended in the middle, without a word.
    pub cut: u64,
    /// A stream that ended with an error event.
    pub error_events: u64,
    /// A whole answer that says something else than before, or nothing that can be read.
    pub wrong_bytes: u64,
    /// The first few that were not whole.
    examples: Vec<String>,
}

/// Examples kept.
const MAX_EXAMPLES: usize = 5;

// === impl Toll ===

impl Toll {
    /// Adds an answer, which should have been `expected` if that is known.
    pub fn add(&mut self, answer: &Answer, expected: Option<&str>) {
        let count = match &answer.failure {
            None if expected.is_none_or(|expected| answer.text == expected) => {
                self.ok += 1;
                return;
            }
            None | Some(Failure::Malformed(_)) => &mut self.wrong_bytes,
            Some(Failure::ErrorEvent(_)) => &mut self.error_events,
            Some(Failure::Status { .. } | Failure::Connect(_)) => &mut self.failed,
            Some(Failure::Reset(_) | Failure::Timeout | Failure::Truncated) => {
                if answer.status.is_some() { &mut self.cut } else { &mut self.failed }
            }
        };
        *count += 1;
        if self.examples.len() < MAX_EXAMPLES {
            let upstream = answer.upstream().unwrap_or("no pod");
            let why = answer.failure.as_ref().map_or("other text".to_owned(), Failure::to_string);
            self.examples.push(format!("{upstream}: {why}"));
        }
    }

    /// Whole answers.
    pub fn whole(&self) -> u64 {
        self.ok
    }

    /// All answers.
    pub fn total(&self) -> u64 {
        self.rows().map(|(_, count)| count).sum()
    }

    /// Requests whose client saw something.
    pub fn visible(&self) -> u64 {
        self.total() - self.ok
    }

    /// The counts with their names.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("ok", self.ok),
            ("failed before headers", self.failed),
            ("cut", self.cut),
            ("error event", self.error_events),
            ("wrong bytes", self.wrong_bytes),
        ]
        .into_iter()
    }

    /// The first few that were not whole.
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}
