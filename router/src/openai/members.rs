//! A JSON object as written: members in order, duplicates included.

use std::borrow::Cow;
use std::ops::Range;

use super::scan::{BadJson, Deaf, Scanner};
use super::text::{Text, meaning};

/// The members of a JSON object in order, duplicates included.
pub(super) struct Members<'a>(pub(super) Vec<Member<'a>>);

/// One of them.
pub(super) struct Member<'a> {
    /// Its key, unescaped.
    pub(super) key: Cow<'a, str>,
    /// Its value as written.
    pub(super) value: &'a str,
    /// Where its text stands, if it was wanted.
    pub(super) text: Option<Range<usize>>,
}

/// More members than any API has. Each is remembered: a body of nothing but empty keys would take
/// thirteen times its length.
const MOST: usize = 1000;

// === impl Members ===

impl<'a> Members<'a> {
    /// Reads a text that is one object.
    pub(super) fn read(text: &'a str) -> Result<Self, BadJson> {
        Self::read_with_text(text, |_, _| false, &mut String::new())
    }

    /// The same, appending to `out` on the way the text of the values that are wanted, by their key
    /// and first byte.
    pub(super) fn read_with_text(
        text: &'a str,
        is_wanted: impl Fn(&str, Option<u8>) -> bool,
        out: &mut String,
    ) -> Result<Self, BadJson> {
        let mut scanner = Scanner::new(text);
        let mut members = Vec::with_capacity(16);
        scanner.expect(b'{', "expected value")?;
        if !scanner.take(b'}') {
            loop {
                scanner.peek();
                let key = meaning(scanner.spelled(|scanner| scanner.string(&mut Deaf))?)?;
                scanner.expect(b':', "expected `:`")?;
                let is_wanted = is_wanted(&key, scanner.peek());
                let began = out.len();
                let value = scanner.spelled(|scanner| match is_wanted {
                    true => scanner.value(&mut Text(out)),
                    false => scanner.value(&mut Deaf),
                })?;
                if members.len() == MOST {
                    return Err(scanner.bad("more than 1000 members"));
                }
                members.push(Member { key, value, text: is_wanted.then_some(began..out.len()) });
                if !scanner.take(b',') {
                    break;
                }
            }
            scanner.expect(b'}', "expected `,` or `}`")?;
        }
        scanner.end()?;
        Ok(Self(members))
    }

    /// The member of a key: the last one, as in the pod's own parser.
    pub(super) fn member(&self, key: &str) -> Option<&Member<'a>> {
        self.0.iter().rev().find(|member| member.key == key)
    }

    /// Its value.
    pub(super) fn last(&self, key: &str) -> Option<&'a str> {
        self.member(key).map(|member| member.value)
    }
}
