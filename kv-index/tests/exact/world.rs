//! Pods that store and remove at random, the index, and an oracle for each pod.

use std::collections::{BTreeMap, BTreeSet};

use kv_index::{
    Applied, BlockHash, ChainHasher, EngineHash, Event, ExactIndex, ExactSettings, ExtraKey,
    Medium, Overlap, Removed, Slot, Slots, Stored,
};

use crate::oracle::{Oracle, Prefix, Trie, salt};

/// What may happen. Chains are paths of small numbers; positions are in their steps.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Store {
        pod: usize,
        path: Vec<u8>,
        from: usize,
        medium: Medium,
        is_announcement: bool,
    },
    Offload {
        pod: usize,
        path: Vec<u8>,
        from: usize,
        medium: Medium,
    },
    Remove {
        pod: usize,
        path: Vec<u8>,
        from: usize,
        medium: Medium,
        is_reversed: bool,
    },
    Clear {
        pod: usize,
    },
    Die {
        pod: usize,
    },
    Truncate {
        pod: usize,
        path: Vec<u8>,
        from: usize,
    },
    /// An event of a pod that is gone.
    Stale {
        pod: usize,
        path: Vec<u8>,
    },
}

const BLOCK_TOKENS: u32 = 2;

pub(crate) struct World {
    pub(crate) index: ExactIndex,
    hasher: ChainHasher,
    slots: Slots,
    pods: Vec<(Slot, Oracle, bool)>,
    /// Blocks per step of a path.
    scale: usize,
    ids: BTreeMap<Vec<u8>, u64>,
    trie: Trie,
    asked: Vec<Vec<u8>>,
    overlap: Overlap,
    pub(crate) applied: Applied,
}

impl World {
    pub(crate) fn new(pods: usize, scale: usize, settings: ExactSettings) -> Self {
        let hasher = ChainHasher::with_seed(7);
        let mut slots = Slots::default();
        // Some indices apart, so that bitmaps of several words are met.
        let mut pods: Vec<_> = (0..pods).map(|_| slots.acquire()).collect();
        pods.extend((0..70).map(|_| slots.acquire()).last());
        let pods = pods.into_iter().map(|slot| (slot, Oracle::default(), false)).collect();
        Self {
            index: ExactIndex::new(settings, hasher.clone()),
            hasher,
            slots,
            pods,
            scale,
            ids: BTreeMap::new(),
            trie: Trie::default(),
            asked: Vec::new(),
            overlap: Overlap::default(),
            applied: Applied::default(),
        }
    }

    pub(crate) fn run(&mut self, op: &Op) {
        match op.clone() {
            Op::Store { pod, path, from, medium, is_announcement } => {
                let from = from.min(path.len() - 1);
                let mut stored = self.stored(pod, &path, from);
                (stored.medium, stored.is_announcement) = (medium, is_announcement);
                self.tell(pod, &Event::Stored(stored));
                self.asked.push(path);
            }
            Op::Offload { pod, path, from, medium } => {
                let from = from.min(path.len() - 1);
                let Stored { blocks, .. } = self.stored(pod, &path, from);
                let stored =
                    Stored { blocks, medium, block_tokens: BLOCK_TOKENS, ..Stored::default() };
                self.tell(pod, &Event::Stored(stored));
            }
            Op::Remove { pod, path, from, medium, is_reversed } => {
                let from = from.min(path.len() - 1);
                let Stored { mut blocks, .. } = self.stored(pod, &path, from);
                if is_reversed {
                    blocks.reverse();
                }
                // As vLLM does: an event per block.
                let at_once = if path.len() % 2 == 0 { 1 } else { blocks.len() };
                for blocks in blocks.chunks(at_once) {
                    let blocks = blocks.to_vec();
                    self.tell(pod, &Event::Removed(Removed { blocks, medium, group: 0 }));
                }
            }
            Op::Clear { pod } => {
                self.tell(pod, &Event::Cleared);
                self.pods[pod].2 = false;
            }
            Op::Die { pod } => {
                let (slot, ..) = self.pods[pod];
                self.index.remove(slot);
                self.slots.release(slot);
                self.pods[pod] = (self.slots.acquire(), Oracle::default(), false);
            }
            Op::Truncate { pod, path, from } => {
                let chain = self.chain(&path);
                let (slot, ..) = self.pods[pod];
                let from = from * self.scale;
                let lost = self.index.truncate(slot, &chain, from);
                self.pods[pod].2 |= lost > 0;
                self.index.overlap(&chain, &mut self.overlap);
                let blocks = self.overlap.blocks(slot) as usize;
                assert!(blocks <= from, "truncated to {from}, {blocks} are left");
            }
            Op::Stale { pod, path } => {
                let (old, ..) = self.pods[pod];
                self.run(&Op::Die { pod });
                let event = Event::Stored(self.stored(pod, &path, 0));
                let ignored = self.index.apply(old, &event).ignored;
                assert_eq!(ignored, path.len() * self.scale, "a dead pod's event was taken");
            }
        }
    }

    /// All pods go, and nothing is left.
    pub(crate) fn end(&mut self) {
        for (slot, ..) in &self.pods {
            self.index.remove(*slot);
        }
        assert_eq!((self.index.blocks(), self.index.holder_blocks()), (0, 0));
    }

    fn tell(&mut self, pod: usize, event: &Event) {
        let (slot, oracle, is_lossy) = &mut self.pods[pod];
        if let Event::Removed(removed) = event {
            *is_lossy |= oracle.awaits(&removed.blocks);
        }
        let applied = self.index.apply(*slot, event);
        oracle.apply(&mut self.trie, event);
        *is_lossy |= applied.lost > 0 || applied.renamed > 0;
        self.applied += applied;
    }

    /// Holds every pod's depth of every chain asked so far against its oracle.
    pub(crate) fn check(&mut self) {
        let asked: BTreeSet<_> = std::mem::take(&mut self.asked).into_iter().collect();
        for path in &asked {
            self.check_path(path);
        }
        self.asked.extend(asked);
    }

    /// The same of the chain asked last, and of its neighbour.
    pub(crate) fn check_last(&mut self) {
        if let Some(path) = self.asked.last().cloned() {
            self.check_path(&path);
        }
    }

    fn check_path(&mut self, path: &[u8]) {
        let is_evicted = self.applied.evicted > 0;
        let mut turned = path.to_vec();
        *turned.last_mut().expect("a path has a first step") ^= 1;
        for path in [path.to_vec(), turned] {
            let chain = self.chain(&path);
            let prompt = self.prompt(&path);
            self.index.overlap(&chain, &mut self.overlap);
            for (slot, oracle, is_lossy) in &self.pods {
                let said = (self.overlap.blocks(*slot), self.overlap.gpu_blocks(*slot));
                let truth = oracle.depths(&prompt);
                let case = format!("{path:?} {slot:?}: {said:?}, in truth {truth:?}");
                assert!(said.0 <= truth.0 && said.1 <= truth.1, "above: {case}");
                assert!(*is_lossy || is_evicted || said == truth, "below: {case}");
            }
        }
    }

    /// A path's first step picks the adapter and the salt.
    fn root(path: &[u8]) -> (Option<String>, Option<String>) {
        let first = path[0];
        ((first == 2).then(|| "lora".to_owned()), (first == 3).then(|| "tenant".to_owned()))
    }

    fn tokens(&self, path: &[u8]) -> Vec<u32> {
        let block =
            |step: u8, at: usize| [u32::from(step), u32::try_from(at).expect("a few blocks")];
        path.iter().flat_map(|step| (0..self.scale).flat_map(move |at| block(*step, at))).collect()
    }

    fn chain(&self, path: &[u8]) -> Vec<BlockHash> {
        let (adapter, salt) = Self::root(path);
        let root = self.index.root(adapter.as_deref(), salt.as_deref(), BLOCK_TOKENS);
        let mut chain = Vec::new();
        self.hasher.chain_tokens(root, &self.tokens(path), BLOCK_TOKENS as usize, &mut chain);
        chain
    }

    fn prompt(&mut self, path: &[u8]) -> Vec<Prefix> {
        let (adapter, tenant) = Self::root(path);
        let tokens = self.tokens(path);
        let mut extra: Vec<_> = tenant.iter().map(|tenant| salt(tenant)).collect();
        let mut prefix = self.trie.root(adapter.as_ref());
        let block = |tokens: &[u32]| {
            prefix = self.trie.after(prefix, (tokens.to_vec(), std::mem::take(&mut extra)));
            prefix
        };
        tokens.chunks(BLOCK_TOKENS as usize).map(block).collect()
    }

    /// How a pod names blocks: half of them alike, some in names of their own, some by names that
    /// mean another block to the rest.
    fn name(&mut self, pod: usize, path: &[u8], at: usize) -> EngineHash {
        let next = self.ids.len() as u64;
        let id = *self.ids.entry(path.to_vec()).or_insert(next);
        let id = match pod % 4 {
            2 => id + 1_000_000,
            3 => id ^ 1,
            _ => id,
        };
        EngineHash(id * 1000 + at as u64)
    }

    fn stored(&mut self, pod: usize, path: &[u8], from: usize) -> Stored {
        let (adapter, tenant) = Self::root(path);
        let steps = from + 1..=path.len();
        let scale = self.scale;
        let blocks: Vec<_> = steps
            .flat_map(|step| (0..scale).map(move |at| (step, at)))
            .map(|(step, at)| self.name(pod, &path[..step], at))
            .collect();
        let parent = (from > 0).then(|| self.name(pod, &path[..from], scale - 1));
        let mut extra_keys = vec![Vec::new(); blocks.len()];
        if from == 0 {
            extra_keys[0] = tenant.map(ExtraKey::Text).into_iter().collect();
        }
        let tokens = self.tokens(&path[from..]);
        let block_tokens = BLOCK_TOKENS;
        Stored { blocks, parent, tokens, block_tokens, adapter, extra_keys, ..Stored::default() }
    }
}
