//! Whether JSON of a client's is small enough to be built as a tree of values.

use super::scan::{Scanner, Sink};

/// Values of one request that are built: a hundred tools with two hundred values each in their
/// schemas, and a conversation of ten thousand messages. A value takes two bytes to send and some 130
/// here, with the copies that a template is given. So a request takes 9 MB more than its bytes, for as
/// long as it is read, and no more of them are at once than threads read.
const MOST_VALUES: usize = 65_536;

/// Counts values; keys are some.
#[derive(Default)]
struct Count(usize);

// === impl Count ===

impl Sink for Count {
    const MAX_DEPTH: usize = usize::MAX;
    const SPELLED: bool = true;

    fn run(&mut self, _run: &str) {}

    fn escape(&mut self, _spelled: &str) -> Result<(), &'static str> {
        Ok(())
    }

    fn end_string(&mut self) {
        self.0 += 1;
    }

    fn scalar(&mut self, _spelled: &str) {
        self.0 += 1;
    }

    fn open(&mut self) {
        self.0 += 1;
    }
}

/// Whether these may be built, all of them together.
pub(crate) fn may_be_built<'a>(parts: impl Iterator<Item = &'a str> + Clone) -> bool {
    // Each value but the last takes a byte, and one that parts it from the next.
    let most: usize = parts.clone().map(|json| json.len() / 2 + 1).sum();
    most <= MOST_VALUES || parts.map(values).sum::<usize>() <= MOST_VALUES
}

/// The values of a JSON text; of one that is broken, those before it breaks: they are built, too.
fn values(json: &str) -> usize {
    let mut count = Count::default();
    // What is wrong with it is said where it is read.
    Scanner::new(json).value(&mut count).unwrap_or_default();
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_wherever_they_stand() {
        for (json, want) in [
            ("0", 1),
            (r#""text, of [one] {value}: 1, 2""#, 1),
            ("[]", 1),
            ("[0, 1,null]", 4),
            (r#"{"a":{"b":[true,"c"]}}"#, 7),
            ("[[],[],{}]", 4),
            ("[0,1,", 3),
        ] {
            assert_eq!(values(json), want, "{json}");
            assert!(values(json) <= json.len() / 2 + 1, "{json}");
        }
    }

    #[test]
    fn what_may_be_built_is_bounded_all_together() {
        let list = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        let may = |lists: &[usize]| {
            let lists: Vec<_> = lists.iter().map(|values| list(*values)).collect();
            may_be_built(lists.iter().map(String::as_str))
        };
        assert!(may(&[MOST_VALUES]) && may(&[MOST_VALUES / 2, MOST_VALUES / 2]));
        assert!(!may(&[MOST_VALUES + 1]) && !may(&[MOST_VALUES / 2, MOST_VALUES / 2 + 1]));
        let long = format!("\"{}\"", "word, ".repeat(1 << 20));
        assert!(may_be_built([long.as_str()].into_iter()), "a text is one value, however long");
    }
}
