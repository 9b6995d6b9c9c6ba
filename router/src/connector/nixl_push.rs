//! NIXL, the prefill pod writes: the same two bodies.
//!
//! The decode pod registers its blocks with the prefill pod whose coordinates it is given, all of
//! them mandatory (`nixl/push_scheduler.py` of vLLM 0.32), so it still has to wait for the answer.

use super::{Connector, Handoff, NoHandoff, Order, handed_over, nixl};
use crate::openai::Member;

#[derive(Debug)]
pub(super) struct NixlPush;

const REQUIRED: [&str; 5] =
    ["remote_engine_id", "remote_request_id", "remote_host", "remote_port", "tp_size"];

impl Connector for NixlPush {
    fn order(&self) -> Order {
        Order::AfterPrefill
    }

    fn prefill(&self, _handoff: &Handoff<'_>) -> Vec<Member> {
        vec![("kv_transfer_params", nixl::KEEP.to_owned())]
    }

    fn decode(&self, _handoff: &Handoff<'_>, answer: &[u8]) -> Result<Vec<Member>, NoHandoff> {
        handed_over(answer, &REQUIRED)
    }

    fn has_lease(&self) -> bool {
        true
    }
}
