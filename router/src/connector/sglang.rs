//! SGLang: concurrent, the same body on both legs.
//!
//! The pods meet in a room at the prefill pod's bootstrap server. The room's number must be exact in
//! every JSON reader on the way and unlike any other that is open.

use std::net::{IpAddr, SocketAddr};

use super::{Connector, Handoff, NoHandoff, Order};
use crate::openai::Member;

#[derive(Debug)]
pub(super) struct Sglang;

impl Connector for Sglang {
    fn order(&self) -> Order {
        Order::Together
    }

    fn prefill(&self, handoff: &Handoff<'_>) -> Vec<Member> {
        vec![
            ("bootstrap_host", format!("\"{}\"", host(handoff.prefill))),
            ("bootstrap_port", handoff.port.to_string()),
            ("bootstrap_room", handoff.room.to_string()),
        ]
    }

    fn decode(&self, handoff: &Handoff<'_>, _answer: &[u8]) -> Result<Vec<Member>, NoHandoff> {
        Ok(self.prefill(handoff))
    }

    /// A server in prefill mode samples one token, whatever is asked for.
    fn caps_prefill(&self) -> bool {
        false
    }
}

/// A host as a URL has it.
pub(super) fn host(addr: SocketAddr) -> String {
    match addr.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
