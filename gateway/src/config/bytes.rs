//! Sizes as people write them.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written as `32MiB`, `64KiB`, `1GB` or a bare number (the notation of the
/// crate `bytesize`). Written back exactly: in the largest binary unit that divides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// A number of bytes, or a share of the memory that this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryBudget {
    /// So many bytes.
    Bytes(ByteSize),
    /// So many hundredths of memory, 1 to 100.
    Percent(u8),
}

/// Reads a size from a string or a whole number.
struct SizeText;

// === impl ByteSize ===

impl ByteSize {
    /// So many bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// So many MiB.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length; a size beyond the address space is the longest length.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is no bytes at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<bytesize::ByteSize>() {
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) => Err(format!("`{text}` is not a size (write `32MiB`, `64KiB` or `1GB`)")),
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let exact = units.iter().find(|(shift, _)| self.0 > 0 && self.0.trailing_zeros() >= *shift);
        match exact {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeText)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "description": "A number of bytes: `32MiB`, `64KiB`, `1GB`.",
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

// === impl MemoryBudget ===

impl MemoryBudget {
    /// The budget in bytes, given the memory in bytes that this process may use.
    #[must_use]
    pub fn bytes_of(self, memory_bytes: u64) -> u64 {
        match self {
            Self::Bytes(size) => size.get(),
            Self::Percent(percent) => memory_bytes / 100 * u64::from(percent),
        }
    }
}

impl FromStr for MemoryBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.parse().map(Self::Bytes);
        };
        match percent.trim_end().parse() {
            Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
            _ => Err(format!("`{text}` is not a share of memory (write `1%` to `100%`)")),
        }
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for MemoryBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemoryBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeText)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for MemoryBudget {
    fn schema_name() -> Cow<'static, str> {
        "MemoryBudget".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ByteSize::json_schema(generator)
    }

    fn inline_schema() -> bool {
        true
    }
}

// === impl SizeText ===

impl Visitor<'_> for SizeText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size like `32MiB`")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E>(self, bytes: u64) -> Result<String, E> {
        Ok(bytes.to_string())
    }
}

/// The memory in bytes that this process may use: the smallest of the machine's memory
/// (`/proc/meminfo`) and the limits of its control group (v2 `memory.max`, v1
/// `memory.limit_in_bytes`). None if none of them can be read.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    const LIMITS: [&str; 2] =
        ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits =
        LIMITS.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    limits.chain(machine).min()
}

/// `MemTotal:       16384256 kB` as bytes.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_written_back_exactly() {
        for (text, bytes, written) in [
            ("32MiB", 32 << 20, "32MiB"),
            ("65536", 65536, "64KiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("1025", 1025, "1025B"),
            ("0", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().expect("it is a size");
            assert_eq!((size.get(), size.to_string().as_str()), (bytes, written), "{text}");
            assert_eq!(written.parse(), Ok(size), "{written} reads back");
        }
    }

    #[test]
    fn a_share_of_memory_is_between_1_and_100_percent() {
        assert_eq!("25%".parse(), Ok(MemoryBudget::Percent(25)));
        assert_eq!(MemoryBudget::Percent(25).bytes_of(4 << 30), 25 * ((4 << 30) / 100));
        for text in ["0%", "101%", "-1%", "2.5%", "%", "much"] {
            assert!(text.parse::<MemoryBudget>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_machine_s_memory_is_read_in_kib() {
        assert_eq!(mem_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16384 << 10));
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
    }
}
