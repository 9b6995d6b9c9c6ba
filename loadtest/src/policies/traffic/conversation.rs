//! Conversations with the statistics of Mooncake's conversation trace, for those who do not have
//! it: 12,031 requests in 3,537 s, 7,373 conversations, of which 31 % come back once and the more
//! surely the longer they are; first prompts of 6,900 tokens in the median and 12,000 in the mean,
//! later turns 3,600 longer, answers of 350; 123 s between turns; one first block that all share.
//! 37 % of the trace's blocks were seen before.

use std::time::Duration;

use rand::Rng;

use super::{Due, Request, Traffic, dice, gap, name, tokens, wait};

const BLOCK_TOKENS: usize = 512;
/// Mean seconds between new conversations.
const GAP_S: f64 = 0.48;
const PROMPT: (f64, f64, (f64, f64)) = (6_400.0, 1.1, (600.0, 120_000.0));
const LATER: (f64, f64, (f64, f64)) = (3_600.0, 1.2, (100.0, 90_000.0));
const ANSWER: (f64, f64, (f64, f64)) = (330.0, 0.7, (2.0, 2_000.0));

/// About so many seconds of it.
pub(crate) fn conversation(seed: u64, seconds: f64) -> Traffic {
    let end = Duration::from_secs_f64(seconds);
    let mut requests = Vec::new();
    let mut starts = dice(seed, 0);
    let mut start = Duration::ZERO;
    for session in 1_u64.. {
        start += gap(&mut starts, GAP_S);
        if start > end {
            break;
        }
        let dice = &mut dice(seed, session);
        let (mut due, mut prompt_tokens) = (start, tokens(dice, PROMPT.0, PROMPT.1, PROMPT.2));
        for turn in 1_u32.. {
            let of = |number: usize| match number {
                0 => name(seed, 0),
                _ => name(super::mix([seed, session]), number),
            };
            requests.push(Request {
                session,
                blocks: (0..prompt_tokens / BLOCK_TOKENS).map(of).collect(),
                prompt_tokens,
                output_tokens: tokens(dice, ANSWER.0, ANSWER.1, ANSWER.2),
                due: Due::At(due),
            });
            let comes_back = (0.2 + 0.11 * f64::from(turn)).min(0.65);
            due += wait(dice, 123.0, 1.0, 3_000.0);
            prompt_tokens += tokens(dice, LATER.0, LATER.1, LATER.2);
            let fits = due <= end && prompt_tokens <= 126_000;
            if !fits || dice.random::<f64>() > comes_back {
                break;
            }
        }
    }
    requests.sort_by_key(|request| match request.due {
        Due::At(time) => time,
        _ => Duration::ZERO,
    });
    Traffic { requests, block_tokens: BLOCK_TOKENS, at_once: 1 }
}
