//! Where a decode leg's KV is.

use serde_json::Value;

use crate::simulator::body::Body;

/// Where a decode leg's KV is, as its body says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct Source {
    /// `host:port` of the side channel.
    pub(super) address: String,
    /// The engine that must be there, where the connector says it.
    pub(super) engine_id: Option<String>,
    /// What the blocks are kept by.
    pub(super) name: String,
    /// Which blocks to read; none: those that are kept by the name, once they are.
    pub(super) blocks: Option<Vec<usize>>,
}

// === impl Source ===

impl Source {
    /// NIXL's parameters; none if one is missing that vLLM asserts. Without `remote_request_id` it
    /// does not: see [`Source::is_nameless`].
    pub(super) fn nixl(params: &Value) -> Option<Self> {
        let text = |field: &str| params.get(field)?.as_str().map(str::to_owned);
        let groups = params.get("remote_block_ids")?.as_array()?;
        let blocks = groups.iter().filter_map(Value::as_array).flatten();
        let blocks =
            blocks.map(|id| usize::try_from(id.as_u64()?).ok()).collect::<Option<Vec<_>>>();
        let port = params.get("remote_port")?.as_u64()?;
        Some(Self {
            address: format!("{}:{port}", text("remote_host")?),
            engine_id: Some(text("remote_engine_id")?),
            name: text("remote_request_id").unwrap_or_default(),
            blocks: Some(blocks?),
        })
    }

    pub(super) fn mooncake(params: &Value) -> Option<Self> {
        let text = |field: &str| params.get(field)?.as_str().map(str::to_owned);
        let address = text("remote_bootstrap_addr")?;
        Some(Self {
            address: address.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            engine_id: text("remote_engine_id"),
            name: text("transfer_id")?,
            blocks: None,
        })
    }

    /// Rooms are integers beyond 2^53: they are never read as floats.
    pub(super) fn sglang(body: &Body) -> Option<Self> {
        let host = body.get("bootstrap_host")?.as_str()?;
        let port = body.get("bootstrap_port")?.as_u64()?;
        let room = body.get("bootstrap_room")?.as_u64()?;
        let address = format!("{host}:{port}");
        Some(Self { address, engine_id: None, name: room.to_string(), blocks: None })
    }

    pub(super) fn offload(params: &Value) -> Option<Self> {
        let from = params.get("remote_prefiller").or(params.get("remote_kv_source"))?;
        let (host, port) = (from.get("remote_host")?.as_str()?, from.get("remote_port")?.as_u64()?);
        Some(Self {
            address: format!("{host}:{port}"),
            engine_id: None,
            name: from.get("kv_request_id")?.as_str()?.to_owned(),
            blocks: None,
        })
    }

    /// Whether nobody can be told that the blocks were read.
    pub(super) fn is_nameless(&self) -> bool {
        self.name.is_empty()
    }
}
