//! The indexes, each behind the same face. Each hashes the tokens that it is given itself.

use std::time::{Duration, Instant};

use kv_index::{BlockHash, ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, Overlap, Slot, Slots, Stored};
use smg_kv_index::{ChainBlockMap, ChainIndex, ContentHash, SequenceHash, StoredBlock};

use crate::fleet::{BLOCK_TOKENS, Store, tokens};

/// An index under measurement.
pub trait Arm {
    fn name(&self) -> &'static str;
    /// Applies stores; how long that took, from tokens to index, decoding aside.
    fn store(&mut self, stores: &[Store]) -> Duration;
    /// Hashes a prompt and keeps it as the next question.
    fn ask(&mut self, blocks: &[u64]);
    /// Reads the question, so that it is in the cache as if it had just been hashed.
    fn recall(&self, question: usize) -> u64;
    fn look_up(&mut self, question: usize);
    /// What the last lookup said of a pod.
    fn depth(&self, pod: usize) -> u32;
}

/// Ours.
pub struct Exact {
    pub index: ExactIndex,
    hasher: ChainHasher,
    slots: Vec<Slot>,
    questions: Vec<Vec<BlockHash>>,
    overlap: Overlap,
}

impl Exact {
    pub fn new(pods: usize) -> Self {
        let hasher = ChainHasher::default();
        let mut slots = Slots::default();
        let settings = ExactSettings { bytes: 4 << 30, pod_bytes: 4 << 30 };
        Self {
            index: ExactIndex::new(settings, hasher.clone()),
            hasher,
            slots: (0..pods).map(|_| slots.acquire()).collect(),
            questions: Vec::new(),
            overlap: Overlap::default(),
        }
    }

    pub fn event(store: &Store) -> Event {
        Event::Stored(Stored {
            blocks: store.names.iter().copied().map(EngineHash).collect(),
            parent: store.parent.map(EngineHash),
            tokens: store.tokens.clone(),
            block_tokens: BLOCK_TOKENS as u32,
            ..Stored::default()
        })
    }

    pub fn apply(&self, pod: usize, event: &Event) {
        let applied = self.index.apply(self.slots[pod], event);
        assert_eq!(applied.lost + applied.unknown_parent + applied.evicted, 0, "{applied:?}");
    }
}

impl Arm for Exact {
    fn name(&self) -> &'static str {
        "hearth"
    }

    fn store(&mut self, stores: &[Store]) -> Duration {
        let events: Vec<_> = stores.iter().map(|store| (store.pod, Self::event(store))).collect();
        let start = Instant::now();
        events.iter().for_each(|(pod, event)| self.apply(*pod, event));
        start.elapsed()
    }

    fn ask(&mut self, blocks: &[u64]) {
        let tokens: Vec<u32> = blocks.iter().flat_map(|block| tokens(*block)).collect();
        let mut chain = Vec::new();
        let root = self.index.root(None, None, BLOCK_TOKENS as u32);
        self.hasher.chain_tokens(root, &tokens, BLOCK_TOKENS, &mut chain);
        self.questions.push(chain);
    }

    fn recall(&self, question: usize) -> u64 {
        self.questions[question].iter().filter(|key| **key == self.questions[question][0]).count() as u64
    }

    fn look_up(&mut self, question: usize) {
        self.index.overlap(&self.questions[question], &mut self.overlap);
    }

    fn depth(&self, pod: usize) -> u32 {
        self.overlap.blocks(self.slots[pod])
    }
}

/// smg's.
pub struct Smg {
    index: ChainIndex,
    workers: Vec<(u32, ChainBlockMap)>,
    questions: Vec<Vec<ContentHash>>,
    scores: Vec<u32>,
}

impl Smg {
    pub fn new(pods: usize) -> Self {
        let index = ChainIndex::new();
        let worker = |pod: usize| index.intern_worker(&format!("pod-{pod}")).expect("256 workers");
        let workers = (0..pods).map(|pod| (worker(pod), ChainBlockMap::new())).collect();
        Self { index, workers, questions: Vec::new(), scores: vec![0; pods] }
    }

    pub fn apply(&mut self, store: &Store, blocks: &mut Vec<StoredBlock>) {
        blocks.clear();
        blocks.extend(store.names.iter().zip(store.tokens.chunks_exact(BLOCK_TOKENS)).map(
            |(name, tokens)| StoredBlock {
                seq_hash: SequenceHash(*name),
                content_hash: smg_kv_index::compute_content_hash(tokens),
            },
        ));
        let (worker, map) = &mut self.workers[store.pod];
        let parent = store.parent.map(SequenceHash);
        self.index.apply_stored(*worker, blocks, parent, map).expect("the parent is held");
    }
}

impl Arm for Smg {
    fn name(&self) -> &'static str {
        "smg"
    }

    fn store(&mut self, stores: &[Store]) -> Duration {
        let mut blocks = Vec::with_capacity(64);
        let start = Instant::now();
        stores.iter().for_each(|store| self.apply(store, &mut blocks));
        start.elapsed()
    }

    fn ask(&mut self, blocks: &[u64]) {
        let tokens: Vec<u32> = blocks.iter().flat_map(|block| tokens(*block)).collect();
        self.questions.push(smg_kv_index::compute_request_content_hashes(&tokens, BLOCK_TOKENS));
    }

    fn recall(&self, question: usize) -> u64 {
        self.questions[question].iter().filter(|key| **key == self.questions[question][0]).count() as u64
    }

    fn look_up(&mut self, question: usize) {
        let Self { index, questions, scores, .. } = self;
        scores.fill(0);
        let report = |worker: u32, score| scores[worker as usize] = score;
        index.score_into(&questions[question], |content| content.0, false, report);
    }

    fn depth(&self, pod: usize) -> u32 {
        self.scores[self.workers[pod].0 as usize]
    }
}
