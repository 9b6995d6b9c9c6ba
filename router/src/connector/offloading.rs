//! vLLM's offloading connector with its peer-to-peer tier: concurrent, and the id is ours.

use super::{Connector, Handoff, NoHandoff, Order};
use crate::openai::Member;

#[derive(Debug)]
pub(super) struct Offloading;

impl Connector for Offloading {
    fn order(&self) -> Order {
        Order::Together
    }

    fn prefill(&self, handoff: &Handoff<'_>) -> Vec<Member> {
        let params = format!(r#"{{"remote_decoder":{{"kv_request_id":"{}"}}}}"#, handoff.id);
        vec![("kv_transfer_params", params)]
    }

    fn decode(&self, handoff: &Handoff<'_>, _answer: &[u8]) -> Result<Vec<Member>, NoHandoff> {
        let (id, ip, port) = (handoff.id, handoff.prefill.ip(), handoff.port);
        let params = format!(
            r#"{{"remote_prefiller":{{"kv_request_id":"{id}","remote_host":"{ip}","remote_port":{port}}}}}"#
        );
        Ok(vec![("kv_transfer_params", params)])
    }
}
