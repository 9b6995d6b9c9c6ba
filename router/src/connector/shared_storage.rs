//! A storage that both pods share: sequential, and nothing is handed over.
//!
//! `cache_hit_threshold: 0` tells a pod to go on whatever it finds there. A client's own threshold
//! asks for a refusal instead; it is ours to answer, and is replaced.

use super::{Connector, Handoff, NoHandoff, Order};
use crate::openai::Member;

#[derive(Debug)]
pub(super) struct SharedStorage;

impl Connector for SharedStorage {
    fn order(&self) -> Order {
        Order::AfterPrefill
    }

    fn prefill(&self, _handoff: &Handoff<'_>) -> Vec<Member> {
        vec![("cache_hit_threshold", "0".to_owned())]
    }

    fn decode(&self, handoff: &Handoff<'_>, _answer: &[u8]) -> Result<Vec<Member>, NoHandoff> {
        Ok(self.prefill(handoff))
    }
}
