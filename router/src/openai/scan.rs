//! JSON read once, front to back, without building anything from it.
//!
//! A prompt of half a megabyte is read by every gateway it passes, so that reading is a large part
//! of what passing it costs: strings are searched 64 bytes at a time ([`Marks`]), and what they say
//! is told in runs as long as can be. The grammar is RFC 8259's, no looser: what this accepts, a
//! pod's parser reads with the same boundaries.

mod marks;

use marks::Marks;

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct BadJson {
    what: &'static str,
    at: usize,
}

/// Who hears of a value's parts, in the order of the text.
pub(super) trait Sink {
    /// How deep values may be nested.
    const MAX_DEPTH: usize;
    /// Whether runs hold the escapes of two characters as they are spelled, but for `\/`.
    const SPELLED: bool;
    /// A stretch of a string or a key.
    fn run(&mut self, run: &str);
    /// An escape inside a string or a key that is part of no run, from its backslash on.
    fn escape(&mut self, spelled: &str) -> Result<(), &'static str>;
    /// A string or a key has ended.
    fn end_string(&mut self);
    /// A number or one of `true`, `false`, `null`.
    fn scalar(&mut self, spelled: &str);
    /// A list or an object begins.
    fn open(&mut self) {}
}

/// Hears nothing: for skipping.
pub(super) struct Deaf;

/// A place in a JSON text.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    marks: Marks<'a>,
}

// === impl Sink ===

impl Sink for Deaf {
    const MAX_DEPTH: usize = usize::MAX;
    const SPELLED: bool = true;

    fn run(&mut self, _run: &str) {}

    fn escape(&mut self, _spelled: &str) -> Result<(), &'static str> {
        Ok(())
    }

    fn end_string(&mut self) {}

    fn scalar(&mut self, _spelled: &str) {}
}

// === impl BadJson ===

impl BadJson {
    /// Not text at all.
    pub(super) fn not_utf8() -> Self {
        Self { what: "not UTF-8", at: 0 }
    }
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, marks: Marks::of(text.as_bytes()) }
    }

    /// The next byte after white space, without taking it.
    pub(super) fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|b| matches!(b, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.at += space;
        rest.get(space).copied()
    }

    /// Takes the next byte, which must be this one.
    pub(super) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), BadJson> {
        if self.peek() != Some(byte) {
            return Err(self.bad(what));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes this byte if it is next.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), BadJson> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.bad("trailing characters")),
        }
    }

    /// The spelling of what `read` reads.
    pub(super) fn spelled(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), BadJson>,
    ) -> Result<&'a str, BadJson> {
        let began = self.at;
        read(self)?;
        Ok(&self.text[began..self.at])
    }

    /// Reads one value, telling `sink` of its parts.
    pub(super) fn value<S: Sink>(&mut self, sink: &mut S) -> Result<(), BadJson> {
        // The containers that are open: their closing bytes.
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek() {
                Some(byte @ (b'{' | b'[')) => {
                    self.at += 1;
                    sink.open();
                    open.push(byte + 2);
                    if open.len() > S::MAX_DEPTH {
                        return Err(self.bad("nested too deeply"));
                    }
                    if !self.take(byte + 2) {
                        self.key_if_object(&open, sink)?;
                        continue;
                    }
                    open.pop();
                }
                Some(b'"') => self.string(sink)?,
                _ => {
                    let scalar = self.scalar()?;
                    sink.scalar(scalar);
                }
            }
            // A value has ended, and with it perhaps the containers around it.
            loop {
                let Some(close) = open.last().copied() else { return Ok(()) };
                if self.take(b',') {
                    self.key_if_object(&open, sink)?;
                    break;
                }
                self.expect(close, "expected `,` or the end of the list or object")?;
                open.pop();
            }
        }
    }

    /// Reads a string, telling `sink` of its parts.
    pub(super) fn string<S: Sink>(&mut self, sink: &mut S) -> Result<(), BadJson> {
        self.expect(b'"', "expected a string")?;
        let mut run = self.at;
        loop {
            let Some(mark) = self.marks.next(self.at) else {
                self.at = self.text.len();
                return Err(self.bad("EOF inside a string"));
            };
            self.at = mark;
            match self.text.as_bytes()[mark] {
                b'"' => {
                    sink.run(&self.text[run..mark]);
                    self.at += 1;
                    sink.end_string();
                    return Ok(());
                }
                b'\\' => {
                    if S::SPELLED && self.is_short_escape() {
                        self.at += 2;
                        continue;
                    }
                    let escape = self.escape()?;
                    self.at += escape.len();
                    sink.run(&self.text[run..mark]);
                    sink.escape(escape).map_err(|what| self.bad(what))?;
                    run = self.at;
                }
                _ => return Err(self.bad("a control character inside a string")),
            }
        }
    }

    /// Whether an escape of two characters begins here, other than `\/`.
    fn is_short_escape(&self) -> bool {
        let kind = self.text.as_bytes().get(self.at + 1);
        matches!(kind, Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't'))
    }

    /// The escape that begins here.
    fn escape(&self) -> Result<&'a str, BadJson> {
        let escape = &self.text.as_bytes()[self.at..];
        let length = match escape.get(1) {
            Some(b'u') => self.unicode_length(escape)?,
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(_) => return Err(self.bad("invalid escape")),
            None => return Err(self.bad("EOF inside a string")),
        };
        Ok(&self.text[self.at..self.at + length])
    }

    /// The length of `\uXXXX`, or of the two of them that make a surrogate pair.
    fn unicode_length(&self, escape: &[u8]) -> Result<usize, BadJson> {
        let is_unit = |at: usize| {
            let hex = escape.get(at + 2..at + 6);
            escape[at..].starts_with(b"\\u")
                && hex.is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit))
        };
        if !is_unit(0) {
            return Err(self.bad("invalid escape"));
        }
        let is_high =
            matches!(&escape[2..4], [b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B']);
        Ok(if is_high && escape.len() >= 12 && is_unit(6) { 12 } else { 6 })
    }

    /// In an object, what comes next is a key and a colon.
    fn key_if_object<S: Sink>(&mut self, open: &[u8], sink: &mut S) -> Result<(), BadJson> {
        if open.last() == Some(&b'}') {
            self.string(sink)?;
            self.expect(b':', "expected `:`")?;
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<&'a str, BadJson> {
        let rest = &self.text.as_bytes()[self.at..];
        let length = ["true", "false", "null"]
            .iter()
            .find(|word| rest.starts_with(word.as_bytes()))
            .map_or_else(|| number(rest), |word| Some(word.len()));
        let Some(length) = length else { return Err(self.bad("expected a value")) };
        let scalar = &self.text[self.at..self.at + length];
        self.at += length;
        Ok(scalar)
    }

    pub(super) fn bad(&self, what: &'static str) -> BadJson {
        let what = if self.at >= self.text.len() { "EOF inside a value" } else { what };
        BadJson { what, at: self.at }
    }
}

/// The length of the number that `text` starts with.
fn number(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return None;
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        at += 1 + Some(fraction).filter(|n| *n > 0)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        at += 1 + sign + Some(exponent).filter(|n| *n > 0)?;
    }
    Some(at)
}

/// Whether the text is one JSON value.
pub(super) fn is_json(text: &str) -> bool {
    let mut scanner = Scanner::new(text);
    scanner.value(&mut Deaf).and_then(|()| scanner.end()).is_ok()
}

#[cfg(test)]
#[path = "scan/tests.rs"]
mod tests;
