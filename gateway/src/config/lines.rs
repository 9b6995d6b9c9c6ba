//! On which line of a file each key is written.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A file's keys, section by section.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, Spanned<Lines>>);

// === impl Lines ===

impl Lines {
    /// The line, from 1, on which the key's value begins; 0 if that is unknown.
    pub(super) fn of(&self, path: &[String]) -> u64 {
        let Some((first, rest)) = path.split_first() else { return 0 };
        let Some(node) = self.0.get(first) else { return 0 };
        match rest {
            [] => node.defined.line(),
            rest => node.value.of(rest),
        }
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

/// Reads sections, and passes over whatever their keys hold.
struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Lines;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lines, A::Error> {
        let mut lines = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            lines.insert(key, value);
        }
        Ok(Lines(lines))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Lines, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Lines::default())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Lines, E> {
        Ok(Lines::default())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<Lines, E> {
        Ok(Lines::default())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<Lines, E> {
        Ok(Lines::default())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<Lines, E> {
        Ok(Lines::default())
    }

    fn visit_str<E>(self, _value: &str) -> Result<Lines, E> {
        Ok(Lines::default())
    }

    fn visit_unit<E>(self) -> Result<Lines, E> {
        Ok(Lines::default())
    }

    fn visit_none<E>(self) -> Result<Lines, E> {
        Ok(Lines::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_are_written() {
        let text = "threads: 2\ntls:\n  cert: a.pem\n\n  key: null\nretry: {attempts: 0}\n\
                    endpoints:\n- url: a\n  role: both\nsplit: ~\n";
        let lines: Lines = serde_saphyr::from_str(text).expect("it is a file");
        let of = |path: &str| lines.of(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        let found =
            ["threads", "tls.cert", "tls.key", "retry.attempts", "nothing", "tls.nothing"].map(of);
        assert_eq!(found, [1, 3, 5, 6, 0, 0]);
        assert!(of("endpoints") >= 7 && of("split") == 10);
    }
}
