//! Agents: long sessions that grow with every tool call, under a few shared system prompts.

use rand::Rng;

use super::{Due, Request, Traffic, dice, gap, mix, name, tokens, wait, zipf};

const BLOCK_TOKENS: usize = 128;
/// Agents of so many kinds, each with its system prompt and tools, by Zipf's law.
const KINDS: usize = 6;
const SYSTEM_TOKENS: usize = 8_192;
const TASK: (f64, f64, (f64, f64)) = (1_000.0, 0.8, (50.0, 8_000.0));
/// What a tool says, or a file holds.
const RESULT: (f64, f64, (f64, f64)) = (900.0, 1.2, (20.0, 16_000.0));
const ANSWER: (f64, f64, (f64, f64)) = (180.0, 0.8, (10.0, 2_000.0));
/// Mostly a tool's time; now and then a person's.
const TOOL_S: (f64, f64) = (3.0, 1.2);
const PERSON_S: (f64, f64) = (90.0, 0.8);

/// So many sessions of 4 to 40 turns, one begun every `gap_s` seconds in the mean.
pub(crate) fn agentic(seed: u64, sessions: u64, gap_s: f64) -> Traffic {
    let mut requests: Vec<Request> = Vec::new();
    let mut starts = dice(seed, 0);
    let mut start = std::time::Duration::ZERO;
    for session in 1..=sessions {
        start += gap(&mut starts, gap_s);
        let dice = &mut dice(seed, session);
        let kind = zipf(dice, KINDS, 1.0) as u64;
        let own = mix([seed, session]);
        let of = |number: usize| match number < SYSTEM_TOKENS / BLOCK_TOKENS {
            true => name(mix([seed, kind, 1]), number),
            false => name(own, number),
        };
        let mut prompt_tokens = SYSTEM_TOKENS + tokens(dice, TASK.0, TASK.1, TASK.2);
        let mut due = Due::At(start);
        for _ in 0..dice.random_range(4..=40) {
            let output_tokens = tokens(dice, ANSWER.0, ANSWER.1, ANSWER.2);
            let blocks = (0..(prompt_tokens + output_tokens) / BLOCK_TOKENS).map(of).collect();
            requests.push(Request { session, blocks, prompt_tokens, output_tokens, due });
            let is_person = dice.random::<f64>() < 0.08;
            let (median, sigma) = if is_person { PERSON_S } else { TOOL_S };
            due = Due::After(requests.len() - 1, wait(dice, median, sigma, 900.0));
            prompt_tokens += output_tokens + tokens(dice, RESULT.0, RESULT.1, RESULT.2);
            if prompt_tokens > 100_000 {
                break;
            }
        }
    }
    Traffic { requests, block_tokens: BLOCK_TOKENS, at_once: 1 }
}
