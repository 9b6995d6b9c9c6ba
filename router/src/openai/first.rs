//! The first element of a JSON list, without room for the others.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// What a list begins with, if it is not empty. All of it is of one kind, as far as JSON can tell.
pub(super) struct First<T>(pub(super) Option<T>);

struct FirstOf<T>(PhantomData<T>);

// === impl First ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstOf(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstOf<T> {
    type Value = First<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<T>, A::Error> {
        let first = list.next_element()?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_read_and_the_others_are_only_looked_over() {
        let first = |json: &str| serde_json::from_str::<First<Vec<u32>>>(json).map(|it| it.0);
        assert_eq!(first("[[1, 2], [3], 4]").unwrap(), Some(vec![1, 2]));
        assert_eq!(first("[]").unwrap(), None);
        assert!(first("[[1], [2]").is_err(), "it has no end");
        assert!(first(r#"["text"]"#).is_err());
    }
}
