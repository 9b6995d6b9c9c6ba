//! The naive index: per pod, a set of prefixes. What the clever one says must never be more.

use std::collections::{BTreeMap, BTreeSet};

use kv_index::{EngineHash, Event, ExtraKey, Medium, Removed, Stored};

/// A prefix, by its place in the trie of all prefixes ever met.
pub(crate) type Prefix = usize;

/// Everything that tells one block from another behind the same prefix: its tokens, and whatever
/// else is part of it (an adapter or a salt: of the first).
type Block = (Vec<u32>, Vec<String>);

/// Prefixes spelled out, nothing hashed.
#[derive(Debug, Default)]
pub(crate) struct Trie {
    next: BTreeMap<(Prefix, Block), Prefix>,
}

impl Trie {
    pub(crate) fn root(&mut self, adapter: Option<&String>) -> Prefix {
        adapter.map_or(0, |adapter| self.after(0, (Vec::new(), vec![adapter.clone()])))
    }

    pub(crate) fn after(&mut self, prefix: Prefix, block: Block) -> Prefix {
        let next = self.next.len() + 1;
        *self.next.entry((prefix, block)).or_insert(next)
    }
}

/// One pod.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    names: BTreeMap<EngineHash, Prefix>,
    copies: BTreeMap<(Prefix, Medium), u32>,
    waiting: Vec<Stored>,
}

impl Oracle {
    pub(crate) fn apply(&mut self, trie: &mut Trie, event: &Event) {
        match event {
            Event::Stored(stored) => self.store(trie, stored),
            Event::Removed(removed) => self.remove(removed),
            Event::Cleared => *self = Self::default(),
        }
    }

    fn store(&mut self, trie: &mut Trie, stored: &Stored) {
        if !self.store_one(trie, stored) {
            self.waiting.push(stored.clone());
            return;
        }
        let mut named: BTreeSet<_> = stored.blocks.iter().copied().collect();
        while let Some(at) = self
            .waiting
            .iter()
            .position(|waiting| waiting.parent.is_some_and(|parent| named.contains(&parent)))
        {
            let waiting = self.waiting.remove(at);
            named.extend(waiting.blocks.iter().copied());
            if !self.store_one(trie, &waiting) {
                self.waiting.push(waiting);
                return;
            }
        }
    }

    /// False if its parent is not there yet.
    fn store_one(&mut self, trie: &mut Trie, stored: &Stored) -> bool {
        if stored.tokens.is_empty() {
            for name in &stored.blocks {
                if let Some(prefix) = self.named(*name) {
                    self.add(prefix, stored);
                }
            }
            return true;
        }
        let mut prefix = match stored.parent {
            None => trie.root(stored.adapter.as_ref()),
            Some(parent) => match self.named(parent) {
                Some(prefix) => prefix,
                None => return false,
            },
        };
        let tokens = stored.tokens.chunks(stored.block_tokens as usize);
        for (index, (name, tokens)) in stored.blocks.iter().zip(tokens).enumerate() {
            let extra = stored.extra_keys.get(index).into_iter().flatten();
            let extra = extra.map(|key| format!("{key:?}")).collect();
            prefix = trie.after(prefix, (tokens.to_vec(), extra));
            self.names.insert(*name, prefix);
            self.add(prefix, stored);
        }
        true
    }

    fn add(&mut self, prefix: Prefix, stored: &Stored) {
        let copies = self.copies.entry((prefix, stored.medium)).or_default();
        if *copies == 0 || !stored.is_announcement {
            *copies += 1;
        }
    }

    fn remove(&mut self, removed: &Removed) {
        for name in &removed.blocks {
            let Some(prefix) = self.names.get(name).copied() else { continue };
            let key = (prefix, removed.medium);
            if let Some(copies) = self.copies.get_mut(&key) {
                *copies -= 1;
                if *copies == 0 {
                    self.copies.remove(&key);
                }
            }
            if !self.holds(prefix) {
                self.names.remove(name);
            }
        }
    }

    /// Whether a store that waits for its parent has one of these blocks.
    pub(crate) fn awaits(&self, blocks: &[EngineHash]) -> bool {
        self.waiting.iter().any(|stored| stored.blocks.iter().any(|block| blocks.contains(block)))
    }

    /// Leading blocks held of the prompt, in any medium and on the GPU.
    pub(crate) fn depths(&self, prompt: &[Prefix]) -> (u32, u32) {
        let on_gpu = |prefix: &&Prefix| self.copies.contains_key(&(**prefix, Medium::Gpu));
        let in_any = prompt.iter().take_while(|prefix| self.holds(**prefix)).count();
        let on_gpu = prompt.iter().take_while(on_gpu).count();
        [in_any, on_gpu].map(|n| u32::try_from(n).expect("a few thousand blocks")).into()
    }

    fn named(&self, name: EngineHash) -> Option<Prefix> {
        self.names.get(&name).copied().filter(|prefix| self.holds(*prefix))
    }

    fn holds(&self, prefix: Prefix) -> bool {
        [Medium::Gpu, Medium::Cpu, Medium::Storage]
            .into_iter()
            .any(|medium| self.copies.contains_key(&(prefix, medium)))
    }
}

/// A salt as it stands in a prefix's first block.
pub(crate) fn salt(salt: &str) -> String {
    format!("{:?}", ExtraKey::Text(salt.to_owned()))
}
