//! Dynamo's two: the compressed radix tree and the positional index. Each owns its events' maps in
//! a thread of its own; what that thread does is timed from the first event to the last one's
//! acknowledgement, and what hashing took is added.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dynamo_kv_router::indexer::WorkerTask;
use dynamo_kv_router::protocols::{
    BlockHashOptions, ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheStoreData,
    KvCacheStoredBlockData, WorkerWithDpRank,
};
use dynamo_kv_router::{
    ConcurrentRadixTreeCompressed, LocalBlockHash, OverlapScores, PositionalIndexer, RouterEvent,
    SyncIndexer, compute_block_hash_for_seq,
};

use super::Arm;
use crate::fleet::{BLOCK_TOKENS, Store, tokens};

/// Blocks that the positional index jumps over: its documentation's example.
const JUMP: usize = 32;

pub struct Dynamo<I> {
    name: &'static str,
    index: Arc<I>,
    /// None once the thread is to end.
    events: Option<flume::Sender<WorkerTask>>,
    thread: Option<thread::JoinHandle<()>>,
    questions: Vec<Vec<LocalBlockHash>>,
    scores: OverlapScores,
}

impl Dynamo<ConcurrentRadixTreeCompressed> {
    pub fn compressed(_: usize) -> Self {
        Self::new("dynamo compressed", ConcurrentRadixTreeCompressed::new())
    }
}

impl Dynamo<PositionalIndexer> {
    pub fn positional(_: usize) -> Self {
        Self::new("dynamo positional", PositionalIndexer::new(JUMP))
    }
}

impl<I: SyncIndexer> Dynamo<I> {
    fn new(name: &'static str, index: I) -> Self {
        let index = Arc::new(index);
        let (events, received) = flume::unbounded();
        let worker = Arc::clone(&index);
        let run = move || worker.worker(received, None).expect("it ends with its events");
        let (events, thread) = (Some(events), Some(thread::spawn(run)));
        Self {
            name,
            index,
            events,
            thread,
            questions: Vec::new(),
            scores: OverlapScores::default(),
        }
    }
}

fn hashed(tokens: &[u32]) -> Vec<LocalBlockHash> {
    compute_block_hash_for_seq(tokens, BLOCK_TOKENS as u32, BlockHashOptions::default())
}

fn event(store: &Store, id: usize) -> RouterEvent {
    let hashes = hashed(&store.tokens);
    let blocks = store.names.iter().zip(hashes).map(|(name, tokens_hash)| {
        let block_hash = ExternalSequenceBlockHash(*name);
        KvCacheStoredBlockData { block_hash, tokens_hash, mm_extra_info: None }
    });
    let data = KvCacheStoreData {
        parent_hash: store.parent.map(ExternalSequenceBlockHash),
        start_position: None,
        blocks: blocks.collect(),
    };
    let data = KvCacheEventData::Stored(data);
    RouterEvent::new(store.pod as u64, KvCacheEvent { event_id: id as u64, data, dp_rank: 0 })
}

impl<I> Drop for Dynamo<I> {
    /// Its memory is gone before the next shape is measured.
    fn drop(&mut self) {
        self.events = None;
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

impl<I: SyncIndexer> Arm for Dynamo<I> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn store(&mut self, stores: &[Store]) -> Duration {
        let mut events: Vec<_> =
            stores.iter().zip(0..).map(|(store, id)| event(store, id)).collect();
        let start = Instant::now();
        for store in stores {
            std::hint::black_box(hashed(&store.tokens));
        }
        let to = self.events.as_ref().expect("the thread runs");
        let last = events.pop().expect("a batch has a store");
        for event in events {
            to.send(WorkerTask::Event(event)).expect("the thread listens");
        }
        let (resp, done) = tokio::sync::oneshot::channel();
        to.send(WorkerTask::EventWithAck { event: last, resp }).expect("the thread listens");
        assert!(done.blocking_recv().expect("the thread answers"), "an event was refused");
        start.elapsed()
    }

    fn ask(&mut self, blocks: &[u64]) {
        let tokens: Vec<u32> = blocks.iter().flat_map(|block| tokens(*block)).collect();
        self.questions.push(hashed(&tokens));
    }

    fn recall(&self, question: usize) -> u64 {
        let question = &self.questions[question];
        question.iter().filter(|hash| hash.0 == question[0].0).count() as u64
    }

    fn look_up(&mut self, question: usize) {
        self.scores = self.index.find_matches(&self.questions[question], false);
    }

    fn depth(&self, pod: usize) -> u32 {
        let worker = WorkerWithDpRank { worker_id: pod as u64, dp_rank: 0 };
        self.scores.scores.get(&worker).copied().unwrap_or(0)
    }
}
