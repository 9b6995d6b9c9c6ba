//! A cursor over msgpack that trusts no length.
//!
//! Every value takes at least one byte, so a declared count above the bytes that are left is an
//! error before anything is allocated for it.

use rmp::Marker;

use super::WireError;
use crate::event::{EngineHash, ExtraKey};

/// What is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// A container, and how many elements or entries it declares.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    Array(usize),
    Map(usize),
}

/// An integer as msgpack has it.
enum Int {
    Unsigned(u64),
    Negative(i64),
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// Bytes that are left.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The start of an array or a map.
    pub(super) fn shape(&mut self, field: &'static str) -> Result<Shape, WireError> {
        let shape = match self.marker()? {
            Marker::FixArray(len) => Shape::Array(len.into()),
            Marker::Array16 => Shape::Array(self.number(2)?),
            Marker::Array32 => Shape::Array(self.number(4)?),
            Marker::FixMap(len) => Shape::Map(len.into()),
            Marker::Map16 => Shape::Map(self.number(2)?),
            Marker::Map32 => Shape::Map(self.number(4)?),
            _ => return Err(WireError::Type { field, expected: "an array or a map" }),
        };
        let (Shape::Array(least) | Shape::Map(least)) = shape;
        if least > self.rest.len() { Err(WireError::Truncated) } else { Ok(shape) }
    }

    /// The start of an array: how many elements follow.
    pub(super) fn array(&mut self, field: &'static str) -> Result<usize, WireError> {
        match self.shape(field)? {
            Shape::Array(len) => Ok(len),
            Shape::Map(_) => Err(WireError::Type { field, expected: "an array" }),
        }
    }

    /// Nil, or a value that `read` reads.
    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.peek()? == Marker::Null {
            self.marker()?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// A float or an integer.
    #[expect(clippy::cast_precision_loss, reason = "it is a time of day")]
    pub(super) fn float(&mut self, field: &'static str) -> Result<f64, WireError> {
        match self.peek()? {
            Marker::F64 => {
                self.marker()?;
                Ok(f64::from_be_bytes(self.array_of()?))
            }
            Marker::F32 => {
                self.marker()?;
                Ok(f32::from_be_bytes(self.array_of()?).into())
            }
            _ => Ok(match self.int(field)? {
                Int::Unsigned(value) => value as f64,
                Int::Negative(value) => value as f64,
            }),
        }
    }

    /// An integer from 0 that fits.
    pub(super) fn unsigned<T: TryFrom<u64>>(
        &mut self,
        field: &'static str,
    ) -> Result<T, WireError> {
        let refused = WireError::Type { field, expected: "an integer in range" };
        match self.int(field)? {
            Int::Unsigned(value) => T::try_from(value).map_err(|_out_of_range| refused),
            Int::Negative(_) => Err(refused),
        }
    }

    /// A string.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, WireError> {
        let refused = WireError::Type { field, expected: "a string" };
        let len = match self.marker()? {
            Marker::FixStr(len) => len.into(),
            Marker::Str8 => self.number(1)?,
            Marker::Str16 => self.number(2)?,
            Marker::Str32 => self.number(4)?,
            _ => return Err(refused),
        };
        std::str::from_utf8(self.take(len)?).map_err(|_not_utf8| refused)
    }

    /// A block's name: a number, or bytes of which the last eight count. Older versions sent
    /// Python's signed hashes.
    pub(super) fn hash(&mut self, field: &'static str) -> Result<EngineHash, WireError> {
        let len = match self.peek()? {
            Marker::Bin8 => 1,
            Marker::Bin16 => 2,
            Marker::Bin32 => 4,
            _ => {
                return Ok(EngineHash(match self.int(field)? {
                    Int::Unsigned(value) => value,
                    Int::Negative(value) => value.cast_unsigned(),
                }));
            }
        };
        self.marker()?;
        let len = self.number(len)?;
        let bytes = self.take(len)?;
        let last = bytes
            .last_chunk::<8>()
            .ok_or(WireError::Type { field, expected: "a number or 8 bytes and more" })?;
        Ok(EngineHash(u64::from_be_bytes(*last)))
    }

    /// An array of blocks' names.
    pub(super) fn hashes(&mut self) -> Result<Vec<EngineHash>, WireError> {
        let len = self.array("block_hashes")?;
        let mut hashes = Vec::with_capacity(len.min(self.rest.len() / 2 + 1));
        for _ in 0..len {
            hashes.push(self.hash("a block's hash")?);
        }
        Ok(hashes)
    }

    /// An array of token ids.
    pub(super) fn tokens(&mut self) -> Result<Vec<u32>, WireError> {
        let len = self.array("token_ids")?;
        let mut tokens = Vec::with_capacity(len);
        for _ in 0..len {
            tokens.push(self.unsigned("a token id")?);
        }
        Ok(tokens)
    }

    /// A string, or the bytes of whatever else comes.
    pub(super) fn extra_key(&mut self) -> Result<ExtraKey, WireError> {
        let mut ahead = *self;
        if let Ok(text) = ahead.text("an extra key") {
            *self = ahead;
            return Ok(ExtraKey::Text(text.to_owned()));
        }
        let before = self.rest;
        self.skip()?;
        Ok(ExtraKey::Opaque(before[..before.len() - self.rest.len()].to_vec()))
    }

    /// Passes over one value, however deep.
    pub(super) fn skip(&mut self) -> Result<(), WireError> {
        // A counter instead of recursion: each value takes a byte, so it ends with the payload.
        let mut values: u64 = 1;
        while values > 0 {
            values -= 1;
            match self.marker()? {
                Marker::FixPos(_)
                | Marker::FixNeg(_)
                | Marker::Null
                | Marker::False
                | Marker::True => {}
                Marker::Reserved => {
                    return Err(WireError::Type { field: "a value", expected: "msgpack" });
                }
                Marker::U8 | Marker::I8 => self.pass(1)?,
                Marker::U16 | Marker::I16 | Marker::FixExt1 => self.pass(2)?,
                Marker::FixExt2 => self.pass(3)?,
                Marker::U32 | Marker::I32 | Marker::F32 => self.pass(4)?,
                Marker::FixExt4 => self.pass(5)?,
                Marker::U64 | Marker::I64 | Marker::F64 => self.pass(8)?,
                Marker::FixExt8 => self.pass(9)?,
                Marker::FixExt16 => self.pass(17)?,
                Marker::FixStr(len) => self.pass(len.into())?,
                Marker::Bin8 | Marker::Str8 => self.pass_sized(1, 0)?,
                Marker::Bin16 | Marker::Str16 => self.pass_sized(2, 0)?,
                Marker::Bin32 | Marker::Str32 => self.pass_sized(4, 0)?,
                Marker::Ext8 => self.pass_sized(1, 1)?,
                Marker::Ext16 => self.pass_sized(2, 1)?,
                Marker::Ext32 => self.pass_sized(4, 1)?,
                Marker::FixArray(len) => values += u64::from(len),
                Marker::Array16 => values += self.number(2)? as u64,
                Marker::Array32 => values += self.number(4)? as u64,
                Marker::FixMap(len) => values += 2 * u64::from(len),
                Marker::Map16 => values += 2 * self.number(2)? as u64,
                Marker::Map32 => values += 2 * self.number(4)? as u64,
            }
            if values > self.rest.len() as u64 {
                return Err(WireError::Truncated);
            }
        }
        Ok(())
    }

    fn int(&mut self, field: &'static str) -> Result<Int, WireError> {
        let signed = |value: i64| u64::try_from(value).map_or(Int::Negative(value), Int::Unsigned);
        Ok(match self.marker()? {
            Marker::FixPos(value) => Int::Unsigned(value.into()),
            Marker::U8 => Int::Unsigned(u8::from_be_bytes(self.array_of()?).into()),
            Marker::U16 => Int::Unsigned(u16::from_be_bytes(self.array_of()?).into()),
            Marker::U32 => Int::Unsigned(u32::from_be_bytes(self.array_of()?).into()),
            Marker::U64 => Int::Unsigned(u64::from_be_bytes(self.array_of()?)),
            Marker::FixNeg(value) => Int::Negative(value.into()),
            Marker::I8 => signed(i8::from_be_bytes(self.array_of()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.array_of()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.array_of()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.array_of()?)),
            _ => return Err(WireError::Type { field, expected: "an integer" }),
        })
    }

    fn peek(&self) -> Result<Marker, WireError> {
        self.rest.first().map(|byte| Marker::from_u8(*byte)).ok_or(WireError::Truncated)
    }

    fn marker(&mut self) -> Result<Marker, WireError> {
        let [byte] = self.array_of()?;
        Ok(Marker::from_u8(byte))
    }

    /// A length of `bytes` bytes, at most four.
    fn number(&mut self, bytes: usize) -> Result<usize, WireError> {
        Ok(self.take(bytes)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn pass(&mut self, len: usize) -> Result<(), WireError> {
        self.take(len).map(|_passed| ())
    }

    fn pass_sized(&mut self, bytes: usize, more: usize) -> Result<(), WireError> {
        let len = self.number(bytes)?;
        self.pass(len.saturating_add(more))
    }
}
