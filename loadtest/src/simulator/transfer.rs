//! KV from pod to pod: what a body says about it, in each connector's words.
//!
//! | connector | prefill leg | decode leg | legs |
//! |---|---|---|---|
//! | NIXL | `kv_transfer_params.do_remote_decode` | the answer's `kv_transfer_params` | one after the other |
//! | Mooncake | the same, with `transfer_id` | `transfer_id`, `remote_bootstrap_addr` | at once |
//! | SGLang | `bootstrap_host`, `_port`, `_room` of the body | the same body | at once |
//! | offloading | `remote_decoder.kv_request_id` | `remote_prefiller` (or `remote_kv_source`) | at once |
//!
//! An answer is a function of its prompt *and of the KV that was used*: whoever decodes from blocks
//! that hold something else, as after the lease, says something else, with 200.

mod channel;
mod source;

use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::{Value, json};

pub(super) use self::{
    channel::{Peers, SideChannel},
    source::Source,
};
use super::{
    body::Body,
    config::{Connector, OnFailure},
    driver::Reading,
    errors::ApiError,
    fault::Fault,
    leases::Hold,
    pod::Pod,
};

/// What a request has to do with other pods.
#[derive(Debug, Clone, Default)]
pub(super) struct Transfer {
    /// Its blocks are kept under this name.
    pub(super) hold: Option<Hold>,
    /// Its KV is read from there.
    pub(super) source: Option<Arc<Source>>,
}

// === impl Pod ===

impl Pod {
    /// Reads the transfer parameters of a body; `id` is the request's. Some parameters kill the
    /// process, as they kill vLLM's.
    pub(super) fn transfer(&self, body: &Body, id: &str) -> Result<Transfer, ApiError> {
        let Some(connector) = self.config.transfer.connector else {
            return Ok(Transfer::default());
        };
        let params = body.get("kv_transfer_params");
        let is = |field: &str| {
            params.and_then(|params| params.get(field)).is_some_and(|it| *it == Value::Bool(true))
        };
        let text = |field: &str| Some(params?.get(field)?.as_str()?.to_owned());
        Ok(match connector {
            Connector::Nixl if is("do_remote_decode") => {
                self.keep(format!("{id}-0-{:08x}", rand::random::<u32>()))
            }
            Connector::Nixl if is("do_remote_prefill") => {
                match Source::nixl(params.unwrap_or(&Value::Null)) {
                    Some(source) => Transfer { hold: None, source: Some(Arc::new(source)) },
                    None => return Err(self.die()),
                }
            }
            Connector::Mooncake if is("do_remote_decode") => {
                text("transfer_id").map_or_else(Transfer::default, |name| self.keep(name))
            }
            Connector::Mooncake if is("do_remote_prefill") => {
                Transfer::from(params.and_then(Source::mooncake))
            }
            Connector::Sglang => match Source::sglang(body) {
                // Who is named as the bootstrap server is the one to prefill.
                Some(source) if source.address.ends_with(&format!(":{}", self.channel_port())) => {
                    self.keep(source.name)
                }
                source => Transfer::from(source),
            },
            Connector::Offload => {
                match params.and_then(|it| it.pointer("/remote_decoder/kv_request_id")) {
                    Some(name) => self.keep(name.as_str().unwrap_or_default().to_owned()),
                    None => Transfer::from(params.and_then(Source::offload)),
                }
            }
            Connector::Nixl | Connector::Mooncake => Transfer::default(),
        })
    }

    /// A request that vLLM refuses is told to its engine even so, where its transfer parameters do
    /// the same harm.
    pub(super) fn refused(&self, body: &Body, error: ApiError) -> ApiError {
        match self.transfer(body, "refused") {
            Ok(_) => error,
            Err(death) => death,
        }
    }

    fn keep(&self, name: String) -> Transfer {
        let lease = self.config.transfer.lease;
        Transfer { hold: Some(Hold { name, lease }), source: None }
    }

    /// `AssertionError` in the engine: the process ends.
    fn die(&self) -> ApiError {
        self.faults.set(Some(Fault::EngineDeath { for_ms: None }));
        ApiError::engine_dead()
    }

    /// The `kv_transfer_params` of a finished prefill leg; `cached_tokens` were found here.
    pub(super) fn transfer_params(
        &self,
        transfer: &Transfer,
        tokens: usize,
        cached_tokens: usize,
    ) -> Value {
        let connector = self.config.transfer.connector;
        let (Some(hold), Some(Connector::Nixl)) = (&transfer.hold, connector) else {
            return Value::Null;
        };
        let fault = self.faults.now();
        let blocks = self.driver.with_engine(|engine| {
            let blocks = engine.known_blocks(&hold.name);
            if fault == Some(Fault::NoLease) {
                engine.lose_lease(&hold.name);
            }
            blocks
        });
        let engine_id = match fault {
            Some(Fault::NoParams) => return Value::Null,
            Some(Fault::WrongEngine) => uuid::Uuid::new_v4().to_string(),
            _ => self.engine_id(),
        };
        json!({
            "do_remote_prefill": true, "do_remote_decode": false, "remote_block_ids": [blocks.unwrap_or_default()],
            "remote_engine_id": engine_id, "remote_request_id": hold.name,
            "remote_host": self.address.ip().to_string(), "remote_port": self.channel_port(),
            "tp_size": 1, "dcp_size": 1, "pp_size": 1, "remote_num_tokens": tokens,
            "remote_blocks_expiry_time": null, "transfer_mode": "pull",
            "remote_prefill_cached_tokens": cached_tokens,
        })
    }

    /// Reads `tokens` tokens' blocks from another pod.
    pub(super) async fn read_from(self: Arc<Self>, source: Arc<Source>, tokens: usize) -> Reading {
        // vLLM holds such a request for ever, and its engine dies when the client gives up.
        let _death = source.is_nameless().then(|| DiesOnDrop(Arc::clone(&self)));
        if source.is_nameless() {
            return std::future::pending().await;
        }
        let read = self.peers.read(&source, &self.config, tokens).await;
        let worked = read.is_ok();
        self.driver.with_engine(|engine| engine.count_transfer(worked));
        match (read, self.config.transfer.on_failure) {
            (Ok(contents), _) => Reading::Received(contents),
            (Err(error), policy) => {
                tracing::debug!(%error, ?source, "a transfer failed");
                match policy {
                    OnFailure::Recompute => Reading::Recompute,
                    OnFailure::Fail => Reading::Failed,
                }
            }
        }
    }

    /// This engine's id; a new process has a new one.
    pub(super) fn engine_id(&self) -> String {
        uuid::Uuid::from_u64_pair(self.engine_id, self.driver.restarts()).to_string()
    }

    fn channel_port(&self) -> u16 {
        self.channel.map_or(0, |address| address.port())
    }
}

struct DiesOnDrop(Arc<Pod>);

impl Drop for DiesOnDrop {
    fn drop(&mut self) {
        // The answer is for nobody.
        drop(self.0.die());
    }
}

// === impl Transfer ===

impl From<Option<Source>> for Transfer {
    fn from(source: Option<Source>) -> Self {
        Self { hold: None, source: source.map(Arc::new) }
    }
}

impl Transfer {
    /// The read that has to come before the prompt of so many tokens.
    pub(super) fn reading(
        &self,
        pod: &Arc<Pod>,
        tokens: usize,
    ) -> Option<futures_util::future::BoxFuture<'static, Reading>> {
        let source = self.source.clone()?;
        Some(Arc::clone(pod).read_from(source, tokens).boxed())
    }
}
