//! The fields of a `BlockStored`, gathered in whatever order they come.

use super::{WireError, group_idx, medium, reader::Reader};
use crate::event::{EngineHash, ExtraKey, Medium, Stored};

/// In array form, after the name.
pub(super) const FIELDS: [&str; 14] = [
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
    "locality",
    "ownership",
    "session_id",
];

/// What was read so far.
#[derive(Debug)]
pub(super) struct StoredFields {
    stored: Stored,
    blocks: Option<Vec<EngineHash>>,
    tokens: Option<Vec<u32>>,
    block_tokens: Option<u32>,
    lora_id: Option<u64>,
    medium: Option<Medium>,
    has_session: bool,
}

// === impl StoredFields ===

impl Default for StoredFields {
    fn default() -> Self {
        Self {
            stored: Stored::default(),
            blocks: None,
            tokens: None,
            block_tokens: None,
            lora_id: None,
            medium: Some(Medium::Gpu),
            has_session: false,
        }
    }
}

impl StoredFields {
    /// Takes the value of a field; false, and nothing read, if there is none of that name.
    pub(super) fn read(&mut self, field: &str, reader: &mut Reader<'_>) -> Result<bool, WireError> {
        match field {
            "block_hashes" => self.blocks = Some(reader.hashes()?),
            "parent_block_hash" => {
                self.stored.parent = reader.optional(|reader| reader.hash("parent_block_hash"))?;
            }
            "token_ids" => self.tokens = Some(reader.tokens()?),
            "block_size" => self.block_tokens = Some(reader.unsigned("block_size")?),
            "lora_id" => {
                self.lora_id = reader.optional(|reader| reader.unsigned("lora_id"))?;
            }
            "medium" => self.medium = medium(reader)?,
            "lora_name" => {
                let name = reader.optional(|reader| reader.text("lora_name"))?;
                self.stored.adapter = name.map(str::to_owned);
            }
            "extra_keys" => {
                self.stored.extra_keys = reader.optional(extra_keys)?.unwrap_or_default();
            }
            "group_idx" => self.stored.group = group_idx(reader)?,
            "kv_cache_spec_sliding_window" => {
                self.stored.window = reader.optional(|reader| reader.unsigned("window"))?;
            }
            "session_id" => {
                self.has_session = reader.optional(Reader::skip)?.is_some();
            }
            "kv_cache_spec_kind" | "locality" | "ownership" => reader.skip()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The event; none if its medium is not known, or if it names neither tokens nor how many make
    /// a block.
    pub(super) fn finish(self) -> Result<Option<Stored>, WireError> {
        let missing = |field| WireError::Missing { field };
        let mut stored = self.stored;
        stored.blocks = self.blocks.ok_or(missing("block_hashes"))?;
        stored.tokens = self.tokens.ok_or(missing("token_ids"))?;
        stored.block_tokens = self.block_tokens.ok_or(missing("block_size"))?;
        check_lengths(&stored)?;
        // An adapter that is known by its number alone shares nothing with the base model: a name
        // that no request can have.
        if stored.adapter.is_none() {
            stored.adapter = self.lora_id.map(|id| format!("\0lora_id={id}"));
        }
        forget_adapter(&mut stored);
        // Only what is announced begins a chain and names a session. A new chain of a session looks
        // the same; taking it for an announcement can only count its blocks once too few.
        stored.is_announcement = self.has_session && stored.parent.is_none();
        let Some(medium) = self.medium else { return Ok(None) };
        stored.medium = medium;
        Ok((stored.block_tokens > 0).then_some(stored))
    }
}

fn check_lengths(stored: &Stored) -> Result<(), WireError> {
    let (blocks, tokens, extra_keys) =
        (stored.blocks.len(), stored.tokens.len(), stored.extra_keys.len());
    let wanted = (stored.block_tokens as usize).checked_mul(blocks);
    // Offloading stores know blocks by hash alone.
    if tokens > 0 && wanted != Some(tokens) {
        return Err(WireError::Tokens { blocks, block_tokens: stored.block_tokens, tokens });
    }
    if extra_keys > 0 && extra_keys != blocks {
        return Err(WireError::ExtraKeys { blocks, extra_keys });
    }
    Ok(())
}

/// The adapter's name is the first extra key of every block; it is not said twice. A list of
/// nothing but empty lists is no list.
fn forget_adapter(stored: &mut Stored) {
    if let Some(adapter) = &stored.adapter {
        for keys in &mut stored.extra_keys {
            if matches!(keys.first(), Some(ExtraKey::Text(first)) if first == adapter) {
                keys.remove(0);
            }
        }
    }
    if stored.extra_keys.iter().all(Vec::is_empty) {
        stored.extra_keys = Vec::new();
    }
}

/// One list, or nil, per block.
fn extra_keys(reader: &mut Reader<'_>) -> Result<Vec<Vec<ExtraKey>>, WireError> {
    let blocks = reader.array("extra_keys")?;
    let mut all = Vec::new();
    for _ in 0..blocks {
        let keys = reader.optional(|reader| {
            let mut keys = Vec::new();
            for _ in 0..reader.array("extra_keys of a block")? {
                keys.push(reader.extra_key()?);
            }
            Ok(keys)
        })?;
        all.push(keys.unwrap_or_default());
    }
    Ok(all)
}
