//! NIXL, the decode pod reads: sequential.
//!
//! Observed on vLLM 0.32: the prefill pod's answer names the blocks and holds them for
//! `kv_lease_duration` (30 s); the decode pod reads them and says when it is done. After the lease the
//! same read succeeds and finds whatever lies there by then.

use super::{Connector, Handoff, NoHandoff, Order, handed_over};
use crate::openai::Member;

#[derive(Debug)]
pub(super) struct Nixl;

/// Asks a pod to keep the blocks. Six keys, as llm-d's sidecar sends them; vLLM reads the booleans.
pub(super) const KEEP: &str = r#"{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}"#;

/// Without one of these a vLLM 0.32 decode pod asserts, or hangs and dies when the client goes
/// (`nixl/pull_scheduler.py`, `update_state_after_alloc`).
pub(super) const REQUIRED: [&str; 5] =
    ["remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host", "remote_port"];

impl Connector for Nixl {
    fn order(&self) -> Order {
        Order::AfterPrefill
    }

    fn prefill(&self, _handoff: &Handoff<'_>) -> Vec<Member> {
        vec![("kv_transfer_params", KEEP.to_owned())]
    }

    fn decode(&self, _handoff: &Handoff<'_>, answer: &[u8]) -> Result<Vec<Member>, NoHandoff> {
        handed_over(answer, &REQUIRED)
    }

    fn has_lease(&self) -> bool {
        true
    }
}
