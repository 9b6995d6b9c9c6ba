//! Blocks that a prefill pod keeps for a decode pod that has not come for them yet.
//!
//! vLLM's NIXL connector holds them for `kv_lease_duration` (30 s) after the prefill; a decode pod
//! that has the request sends heartbeats, each of which extends the lease by two thirds of it. When
//! it has read them, or when the lease is over, they go back to the cache, and whoever reads them
//! later reads what is in that memory then.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use super::cache::{BlockCache, Chain};

/// Blocks to be kept when the request is done, and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What the other pod will call them by.
    pub name: String,
    /// From the end of the prefill.
    pub lease: Duration,
}

/// Everything that an engine keeps for others.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: HashMap<String, Lease>,
    /// The last ones that were ever kept, with their blocks' numbers.
    known: VecDeque<(String, Vec<usize>)>,
}

#[derive(Debug)]
struct Lease {
    chain: Chain,
    length: Duration,
    ends: Duration,
}

/// Names that are remembered when their lease is over.
const MAX_KNOWN: usize = 256;

// === impl Leases ===

impl Leases {
    /// Keeps a chain; returns the one that had the name before.
    pub(super) fn keep(&mut self, hold: Hold, chain: Chain, now: Duration) -> Option<Chain> {
        if self.known.len() == MAX_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back((hold.name.clone(), BlockCache::numbers(&chain)));
        let lease = Lease { chain, length: hold.lease, ends: now + hold.lease };
        self.held.insert(hold.name, lease).map(|before| before.chain)
    }

    /// The numbers of the blocks that are kept under a name.
    pub(super) fn numbers(&self, name: &str) -> Option<Vec<usize>> {
        self.held.get(name).map(|lease| BlockCache::numbers(&lease.chain))
    }

    /// The same, also when the lease is over.
    pub(super) fn known_numbers(&self, name: &str) -> Option<Vec<usize>> {
        let known = self.known.iter().rev().find(|(known, _)| known == name);
        known.map(|(_, numbers)| numbers.clone())
    }

    /// A heartbeat.
    pub(super) fn extend(&mut self, name: &str, now: Duration) {
        if let Some(lease) = self.held.get_mut(name) {
            lease.ends = lease.ends.max(now + lease.length * 2 / 3);
        }
    }

    /// They were read.
    pub(super) fn take(&mut self, name: &str) -> Option<Chain> {
        self.held.remove(name).map(|lease| lease.chain)
    }

    /// Those whose time is over.
    pub(super) fn expired(&mut self, now: Duration) -> Vec<Chain> {
        let over = self.held.extract_if(|_, lease| lease.ends <= now);
        over.map(|(_, lease)| lease.chain).collect()
    }

    /// When the next one is over.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.held.values().map(|lease| lease.ends).min()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.held.keys().cloned().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}
