//! Cache events as vLLM 0.32 writes them: msgpack, its keys in its order, its defaults left out.

use rmp::encode as w;

use super::{cache::CacheEvent, pod::Pod};

/// One step's batch: `[published_at_s, [event, …], rank]`.
pub(super) fn encode(published_at_s: f64, events: &[CacheEvent], block_size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    array(&mut out, 3);
    w::write_f64(&mut out, published_at_s).expect(MEMORY);
    array(&mut out, events.len());
    for event in events {
        match event {
            CacheEvent::Stored { keys, parent, tokens, salt } => {
                let (lora, salt) = Pod::salt_parts(salt);
                let stored = Stored { keys, parent: *parent, tokens, lora, salt };
                stored.write(&mut out, block_size);
            }
            CacheEvent::Removed(key) => {
                map(&mut out, 4);
                field(&mut out, "type", "BlockRemoved");
                numbers(&mut out, "block_hashes", [*key].into_iter());
                field(&mut out, "medium", "GPU");
                number(&mut out, "group_idx", 0);
            }
            CacheEvent::Cleared => {
                map(&mut out, 1);
                field(&mut out, "type", "AllBlocksCleared");
            }
        }
    }
    w::write_uint(&mut out, 0).expect(MEMORY);
    out
}

/// Consecutive filled blocks.
struct Stored<'a> {
    keys: &'a [u64],
    parent: Option<u64>,
    tokens: &'a [u32],
    lora: Option<&'a str>,
    salt: &'a str,
}

const MEMORY: &str = "writing to memory cannot fail";

// === impl Stored ===

impl Stored<'_> {
    fn write(&self, out: &mut Vec<u8>, block_size: usize) {
        map(out, 11);
        field(out, "type", "BlockStored");
        numbers(out, "block_hashes", self.keys.iter().copied());
        text(out, "parent_block_hash");
        match self.parent {
            Some(parent) => drop(w::write_uint(out, parent).expect(MEMORY)),
            None => nil(out),
        }
        numbers(out, "token_ids", self.tokens.iter().map(|token| u64::from(*token)));
        number(out, "block_size", block_size as u64);
        text(out, "lora_id");
        match self.lora {
            // vLLM numbers its adapters; nobody may rely on which.
            Some(_) => drop(w::write_uint(out, 1).expect(MEMORY)),
            None => nil(out),
        }
        field(out, "medium", "GPU");
        text(out, "lora_name");
        match self.lora {
            Some(name) => text(out, name),
            None => nil(out),
        }
        text(out, "extra_keys");
        array(out, self.keys.len());
        for at in 0..self.keys.len() {
            self.write_extra_keys(out, at == 0 && self.parent.is_none());
        }
        number(out, "group_idx", 0);
        field(out, "kv_cache_spec_kind", "full_attention");
    }

    /// The adapter's name is part of every block, the salt of a chain's first.
    fn write_extra_keys(&self, out: &mut Vec<u8>, first: bool) {
        let salt = Some(self.salt).filter(|salt| first && !salt.is_empty());
        let keys = [self.lora, salt];
        if keys == [None, None] {
            return nil(out);
        }
        array(out, keys.iter().flatten().count());
        keys.iter().flatten().for_each(|key| text(out, key));
    }
}

fn array(out: &mut Vec<u8>, len: usize) {
    w::write_array_len(out, u32::try_from(len).expect("a batch is small")).expect(MEMORY);
}

fn map(out: &mut Vec<u8>, len: u32) {
    w::write_map_len(out, len).expect(MEMORY);
}

fn text(out: &mut Vec<u8>, text: &str) {
    w::write_str(out, text).expect(MEMORY);
}

fn nil(out: &mut Vec<u8>) {
    w::write_nil(out).expect(MEMORY);
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    text(out, name);
    text(out, value);
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    text(out, name);
    w::write_uint(out, value).expect(MEMORY);
}

fn numbers(out: &mut Vec<u8>, name: &str, values: impl ExactSizeIterator<Item = u64>) {
    text(out, name);
    array(out, values.len());
    for value in values {
        w::write_uint(out, value).expect(MEMORY);
    }
}

#[cfg(test)]
mod tests;
