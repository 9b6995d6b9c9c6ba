//! A stream of server-sent events cut into whole lines, however its bytes arrive.

use memchr::memchr;

/// Cuts a stream into lines, and keeps no more of it than one unfinished line.
#[derive(Debug)]
pub struct Lines {
    /// In bytes: a longer line is handed on in parts.
    longest: usize,
    partial: Vec<u8>,
    /// Parts of the line that is not whole yet were handed on.
    is_parted: bool,
}

/// What comes of cutting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole line, its end included.
    Line(&'a [u8]),
    /// The next bytes of a line that is too long to be kept.
    Part(&'a [u8]),
}

// === impl Lines ===

impl Lines {
    /// Lines of no more than `longest` bytes.
    #[must_use]
    pub fn new(longest: usize) -> Self {
        Self { longest, partial: Vec::new(), is_parted: false }
    }

    /// Takes the next bytes, and hands on what is whole.
    pub fn cut(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if std::mem::take(&mut self.is_parted) {
                each(Piece::Part(line));
            } else if self.partial.is_empty() {
                each(Piece::Line(line));
            } else {
                self.partial.extend_from_slice(line);
                each(Piece::Line(&self.partial));
                self.partial.clear();
            }
        }
        if bytes.is_empty() {
            return;
        }
        if !self.is_parted && self.partial.len() + bytes.len() <= self.longest {
            return self.partial.extend_from_slice(bytes);
        }
        self.is_parted = true;
        let begun = self.take_rest();
        if !begun.is_empty() {
            each(Piece::Part(&begun));
        }
        each(Piece::Part(bytes));
    }

    /// What was kept of an unfinished line.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Whether the stream stands in the middle of a line.
    #[must_use]
    pub fn is_mid_line(&self) -> bool {
        self.is_parted || !self.partial.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines (`=`) and parts of lines (`~`) of a text that comes in chunks of this size.
    fn cut(text: &str, longest: usize, chunk: usize) -> (Vec<String>, Lines) {
        let (mut lines, mut pieces) = (Lines::new(longest), Vec::<String>::new());
        for bytes in text.as_bytes().chunks(chunk) {
            lines.cut(bytes, |piece| match piece {
                Piece::Line(line) => pieces.push(format!("={}", String::from_utf8_lossy(line))),
                Piece::Part(part) => pieces.push(format!("~{}", String::from_utf8_lossy(part))),
            });
        }
        (pieces, lines)
    }

    #[test]
    fn lines_are_whole_however_their_bytes_arrive() {
        for chunk in 1..12 {
            let (pieces, mut lines) = cut("data: a\n\ndata: b\nda", 64, chunk);
            assert_eq!(pieces, ["=data: a\n", "=\n", "=data: b\n"], "chunks of {chunk}");
            assert!(lines.is_mid_line());
            assert_eq!(lines.take_rest(), b"da");
            assert!(!lines.is_mid_line());
        }
    }

    #[test]
    fn no_byte_of_a_line_that_is_too_long_is_kept_or_lost() {
        let text = "0123456789abcdef\nb\n";
        for chunk in 1..8 {
            let (pieces, lines) = cut(text, 8, chunk);
            let (parts, whole) = pieces.split_at(pieces.len() - 1);
            assert!(parts.iter().all(|part| part.starts_with('~')), "{pieces:?}");
            assert_eq!(whole, ["=b\n"], "chunks of {chunk}");
            let all: String = pieces.iter().map(|piece| &piece[1..]).collect();
            assert_eq!((all.as_str(), lines.is_mid_line()), (text, false));
        }
    }
}
