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
pub(super) struct StoredFields<'a> {
    stored: Stored,
    blocks: Option<Vec<EngineHash>>,
    tokens: Option<Vec<u32>>,
    block_tokens: Option<u32>,
    lora_id: Option<u64>,
    medium: Option<Medium>,
    has_session: bool,
    /// Where the extra keys begin: they are read once it is known how many blocks they are for.
    extra_keys: Option<Reader<'a>>,
}

// === impl StoredFields ===

impl Default for StoredFields<'_> {
    fn default() -> Self {
        Self {
            stored: Stored::default(),
            blocks: None,
            tokens: None,
            block_tokens: None,
            lora_id: None,
            medium: Some(Medium::Gpu),
            has_session: false,
            extra_keys: None,
        }
    }
}

impl<'a> StoredFields<'a> {
    /// Takes the value of a field; false, and nothing read, if there is none of that name.
    pub(super) fn read(&mut self, field: &str, reader: &mut Reader<'a>) -> Result<bool, WireError> {
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
                self.extra_keys = Some(*reader);
                reader.skip()?;
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
        if let Some(mut reader) = self.extra_keys {
            let keys = reader.optional(|reader| extra_keys(reader, stored.blocks.len()))?;
            stored.extra_keys = keys.unwrap_or_default();
        }
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
    let (blocks, tokens) = (stored.blocks.len(), stored.tokens.len());
    let wanted = (stored.block_tokens as usize).checked_mul(blocks);
    // Offloading stores know blocks by hash alone.
    if tokens > 0 && wanted != Some(tokens) {
        return Err(WireError::Tokens { blocks, block_tokens: stored.block_tokens, tokens });
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

/// Keys of one block that are believed: vLLM has an adapter, a salt, and one for each image or sound
/// that touches the block.
const MOST_KEYS: usize = 64;

/// One list, or nil, per block. A nil is one byte there and 24 here: they are only counted until there
/// is a key.
fn extra_keys(reader: &mut Reader<'_>, blocks: usize) -> Result<Vec<Vec<ExtraKey>>, WireError> {
    let lists = reader.array("extra_keys")?;
    if lists > 0 && lists != blocks {
        return Err(WireError::ExtraKeys { blocks, extra_keys: lists });
    }
    let mut all = Vec::new();
    for block in 0..lists {
        let keys = reader.optional(keys_of_block)?.unwrap_or_default();
        if !keys.is_empty() {
            all.resize_with(block, Vec::new);
            all.push(keys);
        }
    }
    if !all.is_empty() {
        all.resize_with(lists, Vec::new);
    }
    Ok(all)
}

fn keys_of_block(reader: &mut Reader<'_>) -> Result<Vec<ExtraKey>, WireError> {
    let keys = reader.array("extra_keys of a block")?;
    if keys > MOST_KEYS {
        return Err(WireError::Type {
            field: "extra_keys of a block",
            expected: "64 keys at most",
        });
    }
    (0..keys).map(|_| reader.extra_key()).collect()
}
