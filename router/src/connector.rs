//! How a prefill pod hands its KV blocks to a decode pod: what the two legs' bodies say.
//!
//! Pure: who sends the legs, and when, is the gateway's business. One file per connector; to add one,
//! a file beside these and a variant of [`ConnectorName`]. The JSON is that of vLLM 0.32 and of
//! llm-d's routing sidecar, to the byte.

mod mooncake;
mod nixl;
mod nixl_push;
mod offloading;
mod sglang;
mod shared_storage;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::openai::Member;

/// The connectors, by the names that the configuration uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectorName {
    /// None: every pod computes its own prompts.
    Off,
    /// vLLM's `NixlConnector` (`NixlPullConnector`): the decode pod reads.
    #[default]
    Nixl,
    /// vLLM's `NixlPushConnector`: the prefill pod writes.
    NixlPush,
    /// vLLM's `MooncakeConnector`.
    Mooncake,
    /// SGLang's bootstrap server.
    Sglang,
    /// vLLM's `OffloadingConnector` with its peer-to-peer tier.
    Offloading,
    /// A storage that both pods share (LMCache and the like).
    SharedStorage,
}

/// When the decode leg is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// When the prefill leg was answered.
    AfterPrefill,
    /// Together with the prefill leg.
    Together,
}

/// One transfer: what its two legs have to agree on.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    /// Its id, unlike any other.
    pub id: &'a str,
    /// Its number, unlike any other of this gateway: below 2^53, so that JSON readers that know only
    /// doubles read the same.
    pub room: u64,
    /// The prefill pod's API.
    pub prefill: SocketAddr,
    /// The port on the prefill pod where decode pods ask; what for is the connector's business.
    pub port: u16,
    /// The prefill pod's engine, where [`Connector::asks_for_engine`].
    pub engine_id: Option<&'a str>,
}

/// Why a prefill leg's answer is of no use to a decode pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHandoff {
    /// It is not JSON.
    #[error("the answer is not JSON")]
    NotJson,
    /// It says nothing of a transfer: the pod runs without the connector, or the request was aborted.
    #[error("the answer has no kv_transfer_params")]
    NoParams,
    /// A key without which a vLLM decode pod hangs, or dies.
    #[error("kv_transfer_params has no {0}")]
    Missing(&'static str),
    /// Nobody knows the prefill pod's engine.
    #[error("the prefill pod's engine is not known")]
    NoEngine,
}

/// What a connector does to the two legs.
pub trait Connector: std::fmt::Debug + Sync {
    /// When the decode leg is sent.
    fn order(&self) -> Order;

    /// Members that the prefill leg gets.
    fn prefill(&self, handoff: &Handoff<'_>) -> Vec<Member>;

    /// Members that the decode leg gets; `answer` is the prefill leg's, if it came before.
    ///
    /// # Errors
    /// An answer that hands nothing over.
    fn decode(&self, handoff: &Handoff<'_>, answer: &[u8]) -> Result<Vec<Member>, NoHandoff>;

    /// Whether the prefill leg is made to sample one token. Otherwise it is the client's own request,
    /// of which the engine computes the prompt.
    fn caps_prefill(&self) -> bool {
        true
    }

    /// Whether the prefill pod's engine has to be asked for before the legs are sent.
    fn asks_for_engine(&self) -> bool {
        false
    }

    /// Whether the prefill pod frees the blocks some time after its answer, read or not: then the
    /// decode leg has to be sent well within that time, since vLLM serves what lies there later
    /// without a word.
    fn has_lease(&self) -> bool {
        false
    }
}

/// What every prefill leg's answer says, of the four APIs.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    kv_transfer_params: Option<&'a RawValue>,
}

// === impl ConnectorName ===

impl ConnectorName {
    /// The connector; none for [`ConnectorName::Off`].
    #[must_use]
    pub fn connector(self) -> Option<&'static dyn Connector> {
        Some(match self {
            Self::Off => return None,
            Self::Nixl => &nixl::Nixl,
            Self::NixlPush => &nixl_push::NixlPush,
            Self::Mooncake => &mooncake::Mooncake,
            Self::Sglang => &sglang::Sglang,
            Self::Offloading => &offloading::Offloading,
            Self::SharedStorage => &shared_storage::SharedStorage,
        })
    }

    /// The port on prefill pods where decode pods ask, unless the configuration says another; none:
    /// the pods tell each other.
    #[must_use]
    pub fn default_port(self) -> Option<u16> {
        match self {
            // VLLM_MOONCAKE_BOOTSTRAP_PORT, SGLANG_BOOTSTRAP_PORT
            Self::Mooncake | Self::Sglang => Some(8998),
            // llm-d's `--p2p-connector-port`
            Self::Offloading => Some(7777),
            Self::Off | Self::Nixl | Self::NixlPush | Self::SharedStorage => None,
        }
    }
}

/// The `kv_transfer_params` of a prefill leg's answer, byte for byte: they are the engine's own and
/// change with its version. `required` are the keys that must have a value.
fn handed_over(answer: &[u8], required: &[&'static str]) -> Result<Vec<Member>, NoHandoff> {
    let answer: Answer<'_> = serde_json::from_slice(answer).map_err(|_bad| NoHandoff::NotJson)?;
    let params = answer.kv_transfer_params.ok_or(NoHandoff::NoParams)?;
    let read: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(params.get()).map_err(|_no_object| NoHandoff::NoParams)?;
    let is_there = |key: &&&str| read.get(**key).is_some_and(|value| !value.is_null());
    if let Some(missing) = required.iter().find(|key| !is_there(key)) {
        return Err(NoHandoff::Missing(missing));
    }
    Ok(vec![("kv_transfer_params", params.get().to_owned())])
}
