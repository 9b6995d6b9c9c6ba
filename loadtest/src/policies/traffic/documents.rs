//! `loadtest documents` in blocks, and the paced conversations that pile on one pod.

use std::collections::HashMap;

use super::{Due, Request, Traffic, name};
use crate::workload::{DocumentsShape, Step, Turn, mix};

/// Tokens per block.
const BLOCK_TOKENS: usize = 16;
/// Tokens of a question, and of an answer.
const TURN_TOKENS: usize = 16;

/// Sessions about documents, of two turns each, in a closed loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Documents {
    /// How many of each.
    pub(crate) shape: DocumentsShape,
    /// Tokens that all documents begin with.
    pub(crate) shared_tokens: usize,
    /// Tokens of each document behind them.
    pub(crate) document_tokens: usize,
    /// Requests in flight.
    pub(crate) at_once: usize,
}

// === impl Documents ===

impl Documents {
    /// All requests, shuffled by `seed`; a session's second turn waits for its first.
    pub(crate) fn traffic(self, seed: u64) -> Traffic {
        let mut begun: HashMap<u32, usize> = HashMap::new();
        let steps = self.shape.steps(seed).into_iter().enumerate();
        let requests = steps.map(|(number, step)| {
            let first = begun.get(&step.session).copied();
            begun.entry(step.session).or_insert(number);
            self.request(seed, step, first)
        });
        Traffic { requests: requests.collect(), block_tokens: BLOCK_TOKENS, at_once: self.at_once }
    }

    /// The first question is the same for all, as in the job; so are the answers, of a greedy model.
    fn request(self, seed: u64, step: Step, first: Option<usize>) -> Request {
        let turns = match step.turn {
            Turn::First => 1,
            Turn::Second => 3,
        };
        let shared = self.shared_tokens / BLOCK_TOKENS;
        let prompt_tokens = self.shared_tokens + self.document_tokens + turns * TURN_TOKENS;
        let of = |number: usize| match number < shared {
            true => name(seed, number),
            false => name(mix([seed, u64::from(step.document) + 1]), number),
        };
        Request {
            session: step.session.into(),
            blocks: (0..(prompt_tokens + TURN_TOKENS) / BLOCK_TOKENS).map(of).collect(),
            prompt_tokens,
            output_tokens: TURN_TOKENS,
            due: Due::InTurn(first),
        }
    }
}
