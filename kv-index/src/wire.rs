//! vLLM's event batches, as msgpack on the wire, into [`Event`]s.
//!
//! A batch is an array, `[published_at_s, [event, …], rank]`. An event is a map with its name under
//! `type` (vLLM 0.32), or an array that begins with its name (before): the same fields in the same
//! order. Newer versions add fields at the end and events of new types, so what is not known is
//! skipped and counted; what is known and wrong is an error.
//!
//! Source: `vllm/distributed/kv_events.py` of 0.32.0, and what it sent.

mod reader;
mod stored;

use crate::event::{Event, Medium, Removed};
use reader::{Reader, Shape};
use stored::StoredFields;

/// What an engine published at the end of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// When, in seconds since the Unix epoch, by the engine's clock.
    pub published_at_s: f64,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The data-parallel rank; none from versions that do not say.
    pub rank: Option<u32>,
    /// What was passed over.
    pub skipped: Skipped,
}

/// What a decoder passed over because it does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Events of a type or in a medium that is not known here.
    pub events: u32,
    /// Fields of known events, and elements of the batch.
    pub fields: u32,
}

/// Why a batch cannot be read. Nothing of it may be believed: the rest of it is lost too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A value, or a length that was declared, goes beyond the end.
    #[error("the batch is cut short")]
    Truncated,
    /// Another kind of value than the field has.
    #[error("{field} is not {expected}")]
    Type {
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A required field is not there.
    #[error("{field} is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// Bytes after the batch.
    #[error("{0} bytes follow the batch")]
    Trailing(usize),
    /// The token ids are not those of the blocks.
    #[error("{tokens} token ids for {blocks} blocks of {block_tokens}")]
    Tokens {
        /// How many blocks.
        blocks: usize,
        /// Tokens per block.
        block_tokens: u32,
        /// How many token ids.
        tokens: usize,
    },
    /// Not one list of extra keys per block.
    #[error("{extra_keys} lists of extra keys for {blocks} blocks")]
    ExtraKeys {
        /// How many blocks.
        blocks: usize,
        /// How many lists.
        extra_keys: usize,
    },
}

/// The fields of a removal in array form, after the name.
const REMOVED_FIELDS: [&str; 5] = ["block_hashes", "medium", "group_idx", "locality", "ownership"];

/// Reads one batch. Allocates at most a small multiple of the payload's own length, whatever
/// lengths it declares.
///
/// # Errors
/// See [`WireError`]. Never panics.
pub fn decode(payload: &[u8]) -> Result<Batch, WireError> {
    let mut reader = Reader::new(payload);
    let elements = reader.array("batch")?;
    if elements < 2 {
        return Err(WireError::Missing { field: "events" });
    }
    let mut batch = Batch { published_at_s: reader.float("timestamp")?, ..Batch::default() };
    for _ in 0..reader.array("events")? {
        let event = read_event(&mut reader, &mut batch.skipped)?;
        batch.events.extend(event);
    }
    if elements > 2 {
        batch.rank = reader.optional(|reader| reader.unsigned("rank"))?;
    }
    for _ in 3..elements {
        batch.skipped.fields += 1;
        reader.skip()?;
    }
    match reader.remaining() {
        0 => Ok(batch),
        bytes => Err(WireError::Trailing(bytes)),
    }
}

/// One event in either form; none if its type or medium is not known.
fn read_event(reader: &mut Reader<'_>, skipped: &mut Skipped) -> Result<Option<Event>, WireError> {
    let shape = reader.shape("event")?;
    let (name, fields) = match shape {
        Shape::Map(len) => (tag(*reader, len)?, len),
        Shape::Array(0) => return Err(WireError::Missing { field: "type" }),
        Shape::Array(len) => (reader.text("type")?, len - 1),
    };
    let names = match (name, shape) {
        (_, Shape::Map(_)) => None,
        ("BlockStored", _) => Some(&stored::FIELDS[..]),
        ("BlockRemoved", _) => Some(&REMOVED_FIELDS[..]),
        _ => Some(&[][..]),
    };
    let mut each = Fields { names, left: fields, at: 0 };
    let event = match name {
        "BlockStored" => {
            let mut stored = StoredFields::default();
            while let Some(field) = each.next(reader)? {
                if !stored.read(field, reader)? {
                    skipped.fields += 1;
                    reader.skip()?;
                }
            }
            stored.finish()?.map(Event::Stored)
        }
        "BlockRemoved" => read_removed(each, reader, skipped)?.map(Event::Removed),
        "AllBlocksCleared" => {
            while each.next(reader)?.is_some() {
                skipped.fields += 1;
                reader.skip()?;
            }
            Some(Event::Cleared)
        }
        _ => {
            while each.next(reader)?.is_some() {
                reader.skip()?;
            }
            None
        }
    };
    skipped.events += u32::from(event.is_none());
    Ok(event)
}

/// The value under `type` of a map whose entries come next; the reader is a copy, so that they are
/// all still to be read. vLLM writes it first, which nobody promises.
fn tag<'a>(mut reader: Reader<'a>, entries: usize) -> Result<&'a str, WireError> {
    for _ in 0..entries {
        if reader.text("a field's name")? == "type" {
            return reader.text("type");
        }
        reader.skip()?;
    }
    Err(WireError::Missing { field: "type" })
}

fn read_removed(
    mut each: Fields,
    reader: &mut Reader<'_>,
    skipped: &mut Skipped,
) -> Result<Option<Removed>, WireError> {
    let (mut blocks, mut place, mut group) = (None, Some(Medium::Gpu), 0);
    while let Some(field) = each.next(reader)? {
        match field {
            "block_hashes" => blocks = Some(reader.hashes()?),
            "medium" => place = medium(reader)?,
            "group_idx" => group = group_idx(reader)?,
            "locality" | "ownership" => reader.skip()?,
            _ => {
                skipped.fields += 1;
                reader.skip()?;
            }
        }
    }
    let blocks = blocks.ok_or(WireError::Missing { field: "block_hashes" })?;
    Ok(place.map(|medium| Removed { blocks, medium, group }))
}

/// Where blocks lie, device memory if it is not said; none if the word is not known.
fn medium(reader: &mut Reader<'_>) -> Result<Option<Medium>, WireError> {
    let word = reader.optional(|reader| reader.text("medium"))?;
    Ok(match word {
        None => Some(Medium::Gpu),
        Some(word) if word.eq_ignore_ascii_case("gpu") => Some(Medium::Gpu),
        Some(word) if word.eq_ignore_ascii_case("cpu") => Some(Medium::Cpu),
        Some(word) if word.eq_ignore_ascii_case("storage") => Some(Medium::Storage),
        Some(_) => None,
    })
}

fn group_idx(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    Ok(reader.optional(|reader| reader.unsigned("group_idx"))?.unwrap_or(0))
}

/// The fields of one event, by name, in either form.
struct Fields {
    /// Their names in array form; none in a map, which says them itself.
    names: Option<&'static [&'static str]>,
    left: usize,
    at: usize,
}

// === impl Fields ===

impl Fields {
    /// The name of the next field, whose value is then to be read; `""` for a position that has no
    /// name here. The tag of a map is passed over.
    fn next<'a>(&mut self, reader: &mut Reader<'a>) -> Result<Option<&'a str>, WireError> {
        while self.left > 0 {
            self.left -= 1;
            let Some(names) = self.names else {
                let name = reader.text("a field's name")?;
                if name == "type" {
                    reader.skip()?;
                    continue;
                }
                return Ok(Some(name));
            };
            self.at += 1;
            return Ok(Some(names.get(self.at - 1).copied().unwrap_or("")));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
