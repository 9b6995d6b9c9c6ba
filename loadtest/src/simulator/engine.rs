//! Continuous batching as a pure function of time.
//!
//! [`Engine::step`] does what one step of vLLM's scheduler and model does: running sequences first,
//! then waiting ones while the token budget, the sequence limit and the memory allow; long prompts
//! in chunks; preemption of the youngest when memory runs out. It returns what came out and how
//! long it took. No clock, no sockets, no tasks.

mod lending;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    cache::{BlockCache, CacheEvent},
    config::EngineConfig,
    language::Language,
    leases::Leases,
    sequence::{Finish, Output, Prompt, RequestId, Sequence},
    stats::Stats,
};

/// A pod's scheduler, memory and model.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    language: Arc<Language>,
    cache: BlockCache,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    leases: Leases,
    stats: Stats,
    next_id: u64,
}

/// One step's work.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How long it took.
    pub duration: Duration,
    /// What came out at its end.
    pub outputs: Vec<Output>,
    /// What happened in the cache until its end.
    pub events: Vec<CacheEvent>,
}

/// The queue is full (`max_num_queued_reqs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests are queued")]
pub struct Busy;

/// What a step computes, in tokens.
#[derive(Debug, Default)]
struct Batch {
    /// Tokens to compute per running sequence, in their order.
    tokens: Vec<usize>,
    prefill_tokens: usize,
    decoding: usize,
}

// === impl Engine ===

impl Engine {
    /// An idle engine with an empty cache.
    pub fn new(config: EngineConfig, language: Arc<Language>) -> Self {
        let mut cache = BlockCache::new(config.block_size, config.num_blocks);
        if config.kv_events {
            cache.record_events();
        }
        Self {
            config,
            language,
            cache,
            waiting: VecDeque::new(),
            running: Vec::new(),
            leases: Leases::default(),
            stats: Stats::default(),
            next_id: 0,
        }
    }

    /// Queues a request. It is the caller's duty that prompt and output fit the cache.
    pub fn submit(&mut self, prompt: Prompt, now: Duration) -> Result<RequestId, Busy> {
        self.admits()?;
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.waiting.push_back(Sequence::new(id, prompt, now));
        Ok(id)
    }

    /// Whether there is room for a request in the queue. A refusal is counted.
    pub fn admits(&mut self) -> Result<(), Busy> {
        let in_flight = self.running.len() + self.waiting.len();
        if self.config.max_num_queued_reqs.is_some_and(|limit| in_flight >= limit) {
            self.stats.rejections += 1;
            return Err(Busy);
        }
        Ok(())
    }

    /// Ends a request from outside and frees what it held: its client has gone, or (`stopped`)
    /// a stop string was found in its text. Unknown ids are requests that ended by themselves.
    pub fn cancel(&mut self, id: RequestId, stopped: bool, now: Duration) {
        let sequence = if let Some(at) = self.running.iter().position(|one| one.id == id) {
            self.running.remove(at)
        } else if let Some(at) = self.waiting.iter().position(|one| one.id == id) {
            self.waiting.remove(at).expect("the position was just found")
        } else {
            return;
        };
        if stopped {
            self.stats.finished_stop += 1;
            self.stats.ended(&sequence, now);
        } else {
            self.stats.aborted += 1;
        }
        self.release(sequence);
    }

    /// Runs one step that begins at `now`; none if there is nothing to do.
    pub fn step(&mut self, now: Duration) -> Option<Step> {
        self.expire_leases(now);
        let batch = self.schedule(now);
        let computed = batch.prefill_tokens + batch.decoding;
        if computed == 0 {
            return None;
        }
        self.stats.iteration_tokens.observe(computed as f64);
        let duration = self.duration(&batch);
        let outputs = self.compute(&batch.tokens, now + duration);
        Some(Step { duration, outputs, events: self.cache.take_events() })
    }

    /// Sequences in the batch: `vllm:num_requests_running`.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences in the queue: `vllm:num_requests_waiting`.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Share of blocks in use by running sequences.
    pub fn cache_usage(&self) -> f64 {
        self.cache.usage()
    }

    /// The cache itself, to look at.
    pub fn cache(&self) -> &BlockCache {
        &self.cache
    }

    /// What a restart leaves: nothing. Requests are lost; their numbers are not used again.
    pub fn restart(&mut self) {
        let next_id = self.next_id;
        *self = Self::new(self.config.clone(), Arc::clone(&self.language));
        self.next_id = next_id;
    }

    /// Forgets all cached blocks that no running sequence holds.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    fn schedule(&mut self, now: Duration) -> Batch {
        let mut batch = Batch::default();
        let mut budget = self.config.max_num_batched_tokens;
        let preemptions = self.stats.preemptions;
        let mut at = 0;
        while at < self.running.len() {
            let tokens = self.running[at].uncomputed().min(budget);
            if !self.make_room(at, tokens) {
                break;
            }
            budget -= tokens;
            batch.add(&self.running[at], tokens);
            at += 1;
        }
        // What was just pushed out would only push back.
        let admits = self.stats.preemptions == preemptions;
        while admits && budget > 0 && self.running.len() < self.config.max_num_seqs {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            let Some(tokens) = self.admit(&mut sequence, budget, now) else {
                self.waiting.push_front(sequence);
                break;
            };
            budget -= tokens;
            batch.add(&sequence, tokens);
            self.running.push(sequence);
        }
        batch
    }

    /// Gives running sequence `at` room for `tokens` more, preempting the youngest if it must;
    /// false if that was `at` itself.
    fn make_room(&mut self, at: usize, tokens: usize) -> bool {
        loop {
            let Some(sequence) = self.running.get_mut(at) else { return false };
            let target = sequence.computed + tokens;
            let chain = sequence.chain.as_mut().expect("a running sequence holds a chain");
            if self.cache.grow(chain, target) {
                self.cache.commit(chain, &sequence.tokens[..target]);
                return true;
            }
            let Some(mut youngest) = self.running.pop() else { return false };
            self.stats.preemptions += 1;
            youngest.preemptions += 1;
            youngest.computed = 0;
            if let Some(chain) = youngest.chain.take() {
                self.cache.release(chain);
            }
            self.waiting.push_front(youngest);
        }
    }

    /// Gives a waiting sequence its blocks and says how many tokens to compute now; none if memory
    /// is short.
    fn admit(&mut self, sequence: &mut Sequence, budget: usize, now: Duration) -> Option<usize> {
        let mut chain = self.cache.begin(&sequence.prompt.cache_salt, &sequence.tokens);
        let found = chain.reused_blocks() * self.config.block_size;
        // The last token is computed here even if all KV comes from another pod.
        let known = match sequence.prompt.received {
            Some(_) => sequence.tokens.len() - 1,
            None => found,
        };
        let tokens = (sequence.tokens.len() - known).min(budget);
        if !self.cache.grow(&mut chain, known + tokens) {
            self.cache.release(chain);
            return None;
        }
        if let Some(contents) = sequence.prompt.received.take() {
            self.cache.receive(&mut chain, &sequence.tokens, &contents);
            self.stats.tainted += u64::from(chain.taint() != 0);
            self.stats.external_queries += (sequence.tokens.len() - found) as u64;
            self.stats.external_hits += (known - found) as u64;
            sequence.received_tokens = known - found;
        }
        self.cache.commit(&mut chain, &sequence.tokens[..known + tokens]);
        sequence.taint = chain.taint();
        sequence.chain = Some(chain);
        sequence.computed = known;
        // A preempted sequence comes back: vLLM counts its lookup apart.
        if sequence.admitted.is_none() {
            sequence.admitted = Some(now);
            sequence.cached_tokens = found;
            self.stats.prefix_cache_queries += sequence.tokens.len() as u64;
            self.stats.prefix_cache_hits += found as u64;
        }
        Some(tokens)
    }

    fn duration(&self, batch: &Batch) -> Duration {
        let prefill_s = batch.prefill_tokens as f64 / self.config.prefill_tokens_per_s;
        let decode_ms = match batch.decoding {
            0 => 0.0,
            count => self.config.decode_ms + self.config.decode_ms_per_seq * count as f64,
        };
        Duration::from_secs_f64(prefill_s + decode_ms / 1000.0)
    }

    /// Moves every scheduled sequence on; `end` is when the step ends.
    fn compute(&mut self, tokens: &[usize], end: Duration) -> Vec<Output> {
        let mut outputs = Vec::new();
        for (sequence, tokens) in self.running.iter_mut().zip(tokens) {
            sequence.computed += tokens;
            if sequence.uncomputed() == 0 {
                outputs.push(sample(sequence, &self.language, &mut self.stats, end));
            }
        }
        for output in outputs.iter().filter(|output| output.finish.is_some()) {
            let at = self.running.iter().position(|one| one.id == output.request);
            let sequence = self.running.remove(at.expect("the output's sequence is running"));
            match output.finish {
                Some(Finish::Length) => self.stats.finished_length += 1,
                _ => self.stats.finished_stop += 1,
            }
            self.stats.ended(&sequence, end);
            self.keep_or_release(sequence, end);
        }
        outputs
    }

    fn keep_or_release(&mut self, mut sequence: Sequence, now: Duration) {
        let (Some(hold), true) = (sequence.prompt.hold.take(), sequence.chain.is_some()) else {
            return self.release(sequence);
        };
        let chain = sequence.chain.take().expect("it was just looked at");
        if let Some(before) = self.leases.keep(hold, chain, now) {
            self.cache.release(before);
        }
    }

    fn release(&mut self, mut sequence: Sequence) {
        if let Some(chain) = sequence.chain.take() {
            self.cache.release(chain);
        }
    }
}

/// Draws the next token of a sequence whose KV is complete.
fn sample(
    sequence: &mut Sequence,
    language: &Language,
    stats: &mut Stats,
    end: Duration,
) -> Output {
    match sequence.last_token.replace(end) {
        None => {
            sequence.first_token = Some(end);
            stats.ttft_s.observe_time(end.saturating_sub(sequence.arrived));
            stats.prompt_tokens += sequence.prompt.tokens.len() as u64;
            stats.prompt_tokens_cached += sequence.cached_tokens as u64;
            stats.prompt_tokens_received += sequence.received_tokens as u64;
        }
        Some(last) => stats.inter_token_s.observe_time(end.saturating_sub(last)),
    }
    let (token, finish) = if sequence.prompt.max_tokens == 0 {
        (None, Some(Finish::Length))
    } else {
        let context = sequence.context.tainted(sequence.taint);
        let free = || language.next(context, sequence.prompt.noise, sequence.may_end());
        let token = sequence.scripted(language.end()).unwrap_or_else(free);
        sequence.context = sequence.context.then(token);
        sequence.tokens.push(token);
        stats.generation_tokens += 1;
        (Some(token), sequence.finish(token, language.end()))
    };
    Output { request: sequence.id, token, cached_tokens: sequence.cached_tokens, finish }
}

// === impl Batch ===

impl Batch {
    fn add(&mut self, sequence: &Sequence, tokens: usize) {
        self.tokens.push(tokens);
        if sequence.is_decoding() {
            self.decoding += tokens;
        } else {
            self.prefill_tokens += tokens;
        }
    }
}

#[cfg(test)]
mod tests;
