//! What JSON strings mean.

use std::borrow::Cow;

use super::scan::{BadJson, Scanner, Sink};

/// Appends the strings, keys, numbers and truth values of what is read to a buffer, each ended by
/// a zero byte: a prompt's text without its JSON structure, in one spelling.
///
/// Two spellings of one prompt (white space, escapes) give the same bytes, and a prompt that
/// continues another starts with its bytes, but for the last zero. Strings are spelled as
/// `JSON.stringify` and serde_json spell them, so that what most clients send is taken in one piece:
/// only what must be escaped is.
pub(super) struct Text<'a>(pub(super) &'a mut String);

/// Appends what a string means to a buffer.
struct Meaning<'a>(&'a mut String);

// === impl Text ===

impl Sink for Text<'_> {
    /// As serde_json's, and so as deep as a chat template can be given messages.
    const MAX_DEPTH: usize = 128;
    const SPELLED: bool = true;

    fn run(&mut self, run: &str) {
        self.0.push_str(run);
    }

    fn escape(&mut self, spelled: &str) -> Result<(), &'static str> {
        let short = match character(spelled)? {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\x08' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\x0c' => "\\f",
            '\r' => "\\r",
            control @ '\0'..' ' => {
                self.0.extend(["\\u00", HEX[usize::from(control >= '\x10')]]);
                self.0.push(char::from_digit(u32::from(control) % 16, 16).unwrap_or('0'));
                return Ok(());
            }
            itself => {
                self.0.push(itself);
                return Ok(());
            }
        };
        self.0.push_str(short);
        Ok(())
    }

    fn end_string(&mut self) {
        self.0.push('\0');
    }

    fn scalar(&mut self, spelled: &str) {
        if spelled != "null" {
            self.0.push_str(spelled);
            self.0.push('\0');
        }
    }
}

// === impl Meaning ===

impl Sink for Meaning<'_> {
    const MAX_DEPTH: usize = 1;
    const SPELLED: bool = false;

    fn run(&mut self, run: &str) {
        self.0.push_str(run);
    }

    fn escape(&mut self, spelled: &str) -> Result<(), &'static str> {
        self.0.push(character(spelled)?);
        Ok(())
    }

    fn end_string(&mut self) {}

    fn scalar(&mut self, _spelled: &str) {}
}

/// The first digit of a control character's two.
const HEX: [&str; 2] = ["0", "1"];

/// The character that an escape stands for.
fn character(spelled: &str) -> Result<char, &'static str> {
    Ok(match spelled.as_bytes()[1] {
        b'b' => '\x08',
        b'f' => '\x0c',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => unicode(spelled.as_bytes()).ok_or("a lone surrogate")?,
        itself => char::from(itself),
    })
}

/// The character of one `\uXXXX` or of a surrogate pair; none for half of one.
fn unicode(spelled: &[u8]) -> Option<char> {
    let units = spelled.chunks_exact(6).map(|unit| {
        let hex = std::str::from_utf8(&unit[2..]).ok()?;
        u16::from_str_radix(hex, 16).ok()
    });
    let units: Option<Vec<u16>> = units.collect();
    let mut characters = char::decode_utf16(units?);
    let first = characters.next()?.ok()?;
    characters.next().is_none().then_some(first)
}

/// What a JSON string means, borrowed when it has no escapes.
pub(super) fn meaning(json: &str) -> Result<Cow<'_, str>, BadJson> {
    let spelled = json.get(1..json.len() - 1).unwrap_or_default();
    if memchr::memchr(b'\\', spelled.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(spelled));
    }
    let mut text = String::with_capacity(json.len());
    Scanner::new(json).string(&mut Meaning(&mut text))?;
    Ok(Cow::Owned(text))
}
