//! A pod in virtual time: the rules of [`crate::simulator`]'s engine, in blocks instead of tokens.
//!
//! What it computes is one step after the other, as there. Steps in which everybody only decodes
//! are alike, so they are taken together until somebody finishes or a request comes: an hour of
//! traffic is some ten thousand steps. A preempted answer is computed anew, but for blocks that have
//! a name. Blocks are in the simulator's own cache, one name for each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::simulator::{BlockCache, CacheEvent, Chain, EngineConfig};

/// A request as the pod sees it.
#[derive(Clone, Debug)]
pub struct Job {
    /// Whose it is.
    pub request: usize,
    /// Names of its full blocks, the prompt's and then the answer's; one more stands for the rest.
    pub blocks: Arc<[u32]>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer, at least one.
    pub output_tokens: usize,
}

/// What came out of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A first token; so many prompt tokens were found in the cache.
    First { request: usize, cached_tokens: usize },
    /// The last token.
    Last { request: usize },
}

/// A scheduler, a memory and a model without words.
#[derive(Debug)]
pub struct Pod {
    config: EngineConfig,
    cache: BlockCache,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    step: Option<Step>,
}

#[derive(Debug)]
struct Sequence {
    job: Job,
    computed: usize,
    generated: usize,
    cached_tokens: Option<usize>,
    chain: Option<Chain>,
}

/// What is being computed.
#[derive(Debug)]
struct Step {
    begun: Duration,
    /// Of one step.
    takes: Duration,
    /// Equal steps taken together.
    repeats: usize,
    /// Tokens per running sequence and step.
    tokens: Vec<usize>,
}

// === impl Pod ===

impl Pod {
    /// An idle pod with an empty cache.
    pub fn new(config: EngineConfig) -> Self {
        let mut cache = BlockCache::new(1, config.num_blocks);
        if config.kv_events {
            cache.record_events();
        }
        Self { config, cache, waiting: VecDeque::new(), running: Vec::new(), step: None }
    }

    /// Queues a request.
    pub fn submit(&mut self, job: Job, now: Duration) {
        let fresh = Sequence { job, computed: 0, generated: 0, cached_tokens: None, chain: None };
        self.waiting.push_back(fresh);
        match &mut self.step {
            // It joins at the end of the step that runs now.
            Some(step) => step.end_after(now),
            None => self.begin(now),
        }
    }

    /// When the step that runs now ends; none while there is nothing to do.
    pub fn due(&self) -> Option<Duration> {
        let step = self.step.as_ref()?;
        Some(step.begun + step.takes * u32::try_from(step.repeats).unwrap_or(u32::MAX))
    }

    /// Ends the step and begins the next one.
    pub fn advance(&mut self, outputs: &mut Vec<Output>) {
        let (Some(now), Some(step)) = (self.due(), self.step.take()) else { return };
        if step.repeats > 1 {
            self.decode(step.repeats - 1);
        }
        let block = self.config.block_size;
        for (sequence, tokens) in self.running.iter_mut().zip(&step.tokens) {
            sequence.computed += tokens * step.repeats;
            if sequence.uncomputed() > 0 {
                continue;
            }
            if sequence.generated == 0 {
                let cached_tokens = sequence.cached_tokens.unwrap_or_default() * block;
                outputs.push(Output::First { request: sequence.job.request, cached_tokens });
            }
            sequence.generated += 1;
        }
        while let Some(at) = self.running.iter().position(Sequence::is_done) {
            let done = self.running.remove(at);
            outputs.push(Output::Last { request: done.job.request });
            self.release(done.chain);
        }
        self.begin(now);
    }

    /// What happened in its cache since the last call.
    pub fn take_events(&mut self) -> Vec<CacheEvent> {
        self.cache.take_events()
    }

    /// Requests in its queue.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Share of blocks in use.
    pub fn usage(&self) -> f64 {
        self.cache.usage()
    }

    fn begin(&mut self, now: Duration) {
        let tokens = self.schedule();
        if tokens.is_empty() {
            return;
        }
        let pairs = || self.running.iter().zip(&tokens);
        let decoding = pairs().filter(|(sequence, _)| sequence.is_decoding()).count();
        let prefill: usize = tokens.iter().sum::<usize>() - decoding;
        let decode_ms = match decoding {
            0 => 0.0,
            count => self.config.decode_ms + self.config.decode_ms_per_seq * count as f64,
        };
        let prefill_s = prefill as f64 / self.config.prefill_tokens_per_s;
        let takes = Duration::from_secs_f64(prefill_s + decode_ms / 1e3);
        let all_decode = prefill == 0 && tokens.len() == self.running.len();
        let repeats = if all_decode { self.alike() } else { 1 };
        self.step = Some(Step { begun: now, takes, repeats, tokens });
    }

    /// How many steps are alike, decode and nothing else, and have room.
    fn alike(&self) -> usize {
        let left = |sequence: &Sequence| sequence.job.output_tokens - sequence.generated;
        let steps = self.running.iter().map(left).min().unwrap_or(1);
        let missing = |one: &Sequence| {
            (one.computed + steps).div_ceil(self.config.block_size) - one.chain_blocks()
        };
        let missing: usize = self.running.iter().map(missing).sum();
        if missing <= self.cache.free_blocks() { steps.max(1) } else { 1 }
    }

    /// Tokens of the next step, one entry for each of the running sequences that take part.
    fn schedule(&mut self) -> Vec<usize> {
        let mut budget = self.config.max_num_batched_tokens;
        let mut tokens = Vec::new();
        let mut preempted = false;
        while tokens.len() < self.running.len() {
            let at = tokens.len();
            let more = self.running[at].uncomputed().min(budget);
            if !self.make_room(at, more, &mut preempted) {
                break;
            }
            budget -= more;
            tokens.push(more);
        }
        while !preempted && budget > 0 && self.running.len() < self.config.max_num_seqs {
            let Some(mut next) = self.waiting.pop_front() else { break };
            let Some(more) = self.admit(&mut next, budget) else {
                self.waiting.push_front(next);
                break;
            };
            budget -= more;
            tokens.push(more);
            self.running.push(next);
        }
        tokens
    }

    /// Gives running sequence `at` room for `more` tokens, preempting the youngest if it must;
    /// false if that was `at` itself.
    fn make_room(&mut self, at: usize, more: usize, preempted: &mut bool) -> bool {
        loop {
            let Some(sequence) = self.running.get_mut(at) else { return false };
            let target = sequence.computed + more;
            if sequence.fill(&mut self.cache, target, self.config.block_size) {
                return true;
            }
            let Some(mut youngest) = self.running.pop() else { return false };
            *preempted = true;
            youngest.computed = 0;
            self.release(youngest.chain.take());
            self.waiting.push_front(youngest);
        }
    }

    /// Tokens to compute now of a sequence that waited; none if memory is short.
    fn admit(&mut self, sequence: &mut Sequence, budget: usize) -> Option<usize> {
        let block = self.config.block_size;
        let known = sequence.job.blocks.len() - 1;
        let reusable = ((sequence.tokens() - 1) / block).min(known);
        let chain = self.cache.begin("", &sequence.job.blocks[..=reusable]);
        let found = chain.reused_blocks();
        sequence.computed = found * block;
        sequence.chain = Some(chain);
        let more = sequence.uncomputed().min(budget);
        if !sequence.fill(&mut self.cache, sequence.computed + more, block) {
            self.release(sequence.chain.take());
            sequence.computed = 0;
            return None;
        }
        sequence.cached_tokens.get_or_insert(found);
        Some(more)
    }

    /// The steps before the last of those that were taken together.
    fn decode(&mut self, steps: usize) {
        for sequence in &mut self.running {
            let target = sequence.computed + steps + 1;
            sequence.fill(&mut self.cache, target, self.config.block_size);
            sequence.generated += steps;
        }
    }

    fn release(&mut self, chain: Option<Chain>) {
        if let Some(chain) = chain {
            self.cache.release(chain);
        }
    }
}

// === impl Sequence ===

impl Sequence {
    fn tokens(&self) -> usize {
        self.job.prompt_tokens + self.generated
    }

    fn uncomputed(&self) -> usize {
        self.tokens() - self.computed
    }

    fn is_decoding(&self) -> bool {
        self.generated > 0 && self.uncomputed() == 1
    }

    fn is_done(&self) -> bool {
        self.generated >= self.job.output_tokens
    }

    fn chain_blocks(&self) -> usize {
        self.chain.as_ref().map_or(0, Chain::len)
    }

    /// Takes blocks for `target` tokens and fills those that become full; false if there are too
    /// few.
    fn fill(&mut self, cache: &mut BlockCache, target: usize, block: usize) -> bool {
        let Some(chain) = &mut self.chain else { return false };
        if !cache.grow(chain, target.div_ceil(block)) {
            return false;
        }
        let known = self.job.blocks.len() - 1;
        cache.commit(chain, &self.job.blocks[..(target / block).min(known)]);
        true
    }
}

// === impl Step ===

impl Step {
    /// Ends it with the first repetition that ends at `now` or later.
    fn end_after(&mut self, now: Duration) {
        let gone = now.saturating_sub(self.begun).as_nanos();
        let steps = gone.div_ceil(self.takes.as_nanos().max(1));
        self.repeats = self.repeats.min(usize::try_from(steps).unwrap_or(usize::MAX).max(1));
    }
}
