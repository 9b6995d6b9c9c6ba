//! Mooncake: concurrent, and the transfer's id is ours.
//!
//! The decode pod finds the prefill pod's engine through its bootstrap server, whose `/query` tells
//! the engine's id per data-parallel rank. A prefill leg's answer says nothing.

use super::{Connector, Handoff, NoHandoff, Order};
use crate::openai::Member;

#[derive(Debug)]
pub(super) struct Mooncake;

impl Connector for Mooncake {
    fn order(&self) -> Order {
        Order::Together
    }

    fn prefill(&self, handoff: &Handoff<'_>) -> Vec<Member> {
        let params = format!(
            r#"{{"do_remote_prefill":false,"do_remote_decode":true,"transfer_id":"xfer-{}"}}"#,
            handoff.id
        );
        vec![("kv_transfer_params", params)]
    }

    fn decode(&self, handoff: &Handoff<'_>, _answer: &[u8]) -> Result<Vec<Member>, NoHandoff> {
        let engine = handoff.engine_id.ok_or(NoHandoff::NoEngine)?;
        let engine = serde_json::Value::from(engine);
        let (id, host, port) = (handoff.id, super::sglang::host(handoff.prefill), handoff.port);
        let params = format!(
            r#"{{"do_remote_prefill":true,"do_remote_decode":false,"transfer_id":"xfer-{id}","remote_bootstrap_addr":"http://{host}:{port}","remote_engine_id":{engine}}}"#
        );
        Ok(vec![("kv_transfer_params", params)])
    }

    fn asks_for_engine(&self) -> bool {
        true
    }
}
