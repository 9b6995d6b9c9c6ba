//! One request inside the engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{cache::Chain, language::Context, leases::Hold};

/// What a client asks of the engine.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    /// Token ids, at least one.
    pub tokens: Vec<u32>,
    /// Output tokens at most; 0 is an embedding: prefill only.
    pub max_tokens: usize,
    /// Output tokens before an end token may come.
    pub min_tokens: usize,
    /// A text to go on with: something comes after it, whatever it ends with. Ids may be an answer
    /// that was cut where it ends.
    pub is_text: bool,
    /// Never end before `max_tokens`.
    pub ignore_eos: bool,
    /// Further tokens that end the answer.
    pub stop_token_ids: Vec<u32>,
    /// What must not share cache with others: LoRA name and `cache_salt`.
    pub cache_salt: String,
    /// What it must say, as by a grammar; empty: what it likes.
    pub script: Arc<[u32]>,
    /// 0 for greedy decoding, else the seed.
    pub noise: u64,
    /// The other answers that were asked for in one API request; none: it is alone.
    pub siblings: Option<Arc<Siblings>>,
    /// Its blocks are kept for another pod when it is done.
    pub hold: Option<Hold>,
    /// What was read from another pod's memory, block for block: the prompt needs no prefill here.
    pub received: Option<Vec<u64>>,
}

/// The `n` answers of one API request.
#[derive(Debug)]
pub struct Siblings {
    n: usize,
    ended: AtomicUsize,
    longest: AtomicUsize,
}

/// A request's number, unique within its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model's own end token.
    End,
    /// One of the request's stop tokens.
    StopToken(u32),
    /// The token limit.
    Length,
}

/// One step's result for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    pub request: RequestId,
    /// The generated token; none for an embedding. An end token is given too, and not to be shown.
    pub token: Option<u32>,
    /// Prompt tokens that were found in the cache.
    pub cached_tokens: usize,
    /// Set on the last output.
    pub finish: Option<Finish>,
}

/// A prompt on its way through the engine.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) prompt: Prompt,
    /// Prompt, then generated tokens.
    pub(super) tokens: Vec<u32>,
    pub(super) context: Context,
    /// Tokens whose KV is computed (or found).
    pub(super) computed: usize,
    /// Blocks held; none while waiting.
    pub(super) chain: Option<Chain>,
    pub(super) cached_tokens: usize,
    /// Prompt tokens whose KV came from another pod.
    pub(super) received_tokens: usize,
    /// Of the chain it holds: see [`Chain::taint`].
    pub(super) taint: u64,
    /// How often it had to give its blocks back.
    pub(super) preemptions: usize,
    pub(super) arrived: Duration,
    pub(super) admitted: Option<Duration>,
    pub(super) first_token: Option<Duration>,
    pub(super) last_token: Option<Duration>,
}

// === impl Siblings ===

impl Siblings {
    /// The answers of a request for `n`.
    pub(super) fn new(n: usize) -> Self {
        Self { n, ended: AtomicUsize::new(0), longest: AtomicUsize::new(0) }
    }

    /// One has ended with so many tokens: `n` and the most tokens, if it was the last.
    fn end(&self, tokens: usize) -> Option<(usize, usize)> {
        let longest = self.longest.fetch_max(tokens, Ordering::Relaxed).max(tokens);
        let ended = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        (ended == self.n).then_some((self.n, longest))
    }
}

// === impl Sequence ===

impl Sequence {
    pub(super) fn new(id: RequestId, prompt: Prompt, now: Duration) -> Self {
        Self {
            id,
            tokens: prompt.tokens.clone(),
            context: Context::of(&prompt.tokens),
            prompt,
            computed: 0,
            chain: None,
            cached_tokens: 0,
            received_tokens: 0,
            taint: 0,
            preemptions: 0,
            arrived: now,
            admitted: None,
            first_token: None,
            last_token: None,
        }
    }

    /// Tokens generated so far.
    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt.tokens.len()
    }

    /// It has ended: how many answers its API request asked for and the tokens of the longest, if
    /// it was the last of them.
    pub(super) fn end(&self) -> Option<(usize, usize)> {
        let tokens = self.generated();
        self.prompt.siblings.as_ref().map_or(Some((1, tokens)), |all| all.end(tokens))
    }

    /// Tokens that a step has still to compute before the next one can be sampled: 1 while
    /// decoding.
    pub(super) fn uncomputed(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the next computed token is a decode step rather than prefill.
    pub(super) fn is_decoding(&self) -> bool {
        self.generated() > 0 && self.uncomputed() == 1
    }

    /// The next token of its script, then the end token.
    pub(super) fn scripted(&self, end: Option<u32>) -> Option<u32> {
        let script = &self.prompt.script;
        script.get(self.generated()).copied().or(end.filter(|_| !script.is_empty()))
    }

    /// Whether an end token may come now.
    pub(super) fn may_end(&self) -> bool {
        let least = self.prompt.min_tokens.max(usize::from(self.prompt.is_text));
        !self.prompt.ignore_eos && self.generated() >= least
    }

    /// How the request ends with `token`, its newest, if it does.
    pub(super) fn finish(&self, token: u32, end: Option<u32>) -> Option<Finish> {
        let may_stop = self.generated() > self.prompt.min_tokens;
        if may_stop && self.prompt.stop_token_ids.contains(&token) {
            Some(Finish::StopToken(token))
        } else if !self.prompt.ignore_eos && end == Some(token) {
            Some(Finish::End)
        } else if self.generated() >= self.prompt.max_tokens {
            Some(Finish::Length)
        } else {
            None
        }
    }
}
