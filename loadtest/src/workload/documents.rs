//! Who asks about which document in which order: the workload that tells routing policies apart.
//!
//! One cache cannot hold all documents, all caches together can. A router that knows which pod
//! holds a document reuses it for each of its sessions; one that only spreads, or that only follows
//! sessions, makes every pod see every document and evict it before it comes again.

use rand::SeedableRng;
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::mix;

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DocumentsShape {
    /// Documents.
    pub documents: u32,
    /// Sessions per document, of two turns each: so many exactly, or on average.
    pub sessions_per_document: u32,
    /// None: every document is asked about equally often. Else the exponent of Zipf's law, by which
    /// the n-th document is drawn for a session n^exponent times more rarely than the first.
    pub zipf: Option<f64>,
}

/// Which question of a session.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Turn {
    /// The document and a question.
    First,
    /// A follow-up, with the first answer in between.
    Second,
}

/// One request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// 0-based.
    pub session: u32,
    /// 0-based.
    pub document: u32,
    /// Which question.
    pub turn: Turn,
}

// === impl DocumentsShape ===

impl DocumentsShape {
    /// Sessions over all documents.
    pub fn sessions(self) -> u32 {
        self.documents * self.sessions_per_document
    }

    /// All requests, shuffled by `seed`; a session's second turn comes somewhere after its first.
    pub fn steps(self, seed: u64) -> Vec<Step> {
        let mut order: Vec<u32> =
            (0..self.sessions()).flat_map(|session| [session, session]).collect();
        order.shuffle(&mut StdRng::seed_from_u64(seed));
        let subjects = self.subjects(seed);
        let mut has_begun = std::collections::BTreeSet::new();
        let steps = order.into_iter().map(|session| Step {
            session,
            document: subjects[session as usize],
            turn: if has_begun.insert(session) { Turn::First } else { Turn::Second },
        });
        steps.collect()
    }

    /// The document of every session.
    fn subjects(self, seed: u64) -> Vec<u32> {
        let evenly = || (0..self.sessions()).map(|session| session % self.documents).collect();
        let Some(exponent) = self.zipf else { return evenly() };
        let weights = (1..=self.documents).map(|rank| f64::from(rank).powf(-exponent));
        // Only no documents at all, or an exponent that is no number, have no weights.
        let Ok(ranks) = WeightedIndex::new(weights) else { return evenly() };
        // Not the order's own numbers: two uses of one stream would be correlated.
        let random = StdRng::seed_from_u64(mix([seed, 1]));
        let ranks = ranks.sample_iter(random).take(self.sessions() as usize);
        ranks.filter_map(|rank| u32::try_from(rank).ok()).collect()
    }
}

#[cfg(test)]
mod tests;
