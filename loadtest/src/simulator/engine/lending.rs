//! What an engine does for other pods: it keeps blocks for them, and lets them read.

use std::time::Duration;

use super::Engine;
// === impl Engine ===

impl Engine {
    /// The numbers of the blocks that are kept under this name.
    pub fn kept_blocks(&self, name: &str) -> Option<Vec<usize>> {
        self.leases.numbers(name)
    }

    /// The same, also when the lease is over.
    pub fn known_blocks(&self, name: &str) -> Option<Vec<usize>> {
        self.leases.known_numbers(name)
    }

    /// Ends a lease before its time, and lets others overwrite the blocks.
    pub fn lose_lease(&mut self, name: &str) {
        let numbers = self.kept_blocks(name).unwrap_or_default();
        self.end_lease(name);
        self.cache.overwrite(&numbers);
        self.stats.expired_leases += 1;
    }

    /// The same for every lease.
    pub fn lose_leases(&mut self) {
        for name in self.leases.names() {
            self.lose_lease(&name);
        }
    }

    /// Counts a read of another pod's blocks.
    pub fn count_transfer(&mut self, worked: bool) {
        self.stats.transfers += u64::from(worked);
        self.stats.failed_transfers += u64::from(!worked);
    }

    /// What is in the memory of these blocks now, whoever they belong to.
    pub fn read_blocks(&self, numbers: &[usize]) -> Vec<u64> {
        self.cache.read(numbers)
    }

    /// The pod that is to read them has its request: the lease is extended.
    pub fn extend_lease(&mut self, name: &str, now: Duration) {
        self.leases.extend(name, now);
    }

    /// They were read: they may be used again.
    pub fn end_lease(&mut self, name: &str) {
        if let Some(chain) = self.leases.take(name) {
            self.cache.release(chain);
        }
    }

    /// Takes back what nobody came for in time.
    pub fn expire_leases(&mut self, now: Duration) {
        for chain in self.leases.expired(now) {
            self.cache.release(chain);
            self.stats.expired_leases += 1;
        }
    }

    /// When the next lease ends.
    pub fn next_lease_end(&self) -> Option<Duration> {
        self.leases.next_end()
    }

    /// Requests whose blocks are kept for another pod.
    pub fn leases(&self) -> usize {
        self.leases.len()
    }
}
