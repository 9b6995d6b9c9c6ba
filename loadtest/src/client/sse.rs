//! Server-sent events, incrementally: bytes in any chunking, whole events out.
//!
//! Format: WHATWG HTML, "Interpreting an event stream". The parser keeps one unfinished line and
//! the data of one unfinished event, both bounded; it refuses to know what the data means.

/// The longest line, and the most data in one event, that we hold. vLLM's largest chunk carries the
/// ids of a whole prompt (`return_token_ids`): 128 k ids of 7 bytes are 0.9 MB.
pub const MAX_EVENT_BYTES: usize = 4 << 20;

/// Why a stream cannot be parsed further.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SseError {
    /// A line or an event is larger than [`MAX_EVENT_BYTES`].
    #[error("a server-sent event is larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
}

/// The state between two chunks of a stream.
#[derive(Clone, Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte seen was a CR: an LF that follows belongs to the same line end.
    after_cr: bool,
    /// The byte order mark is allowed before the first line only.
    past_first_line: bool,
}

// === impl SseParser ===

impl SseParser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and calls `on_data` with the data of every event they complete.
    ///
    /// # Errors
    /// [`SseError::TooLarge`]; the parser is then of no further use.
    pub fn push(&mut self, bytes: &[u8], mut on_data: impl FnMut(&[u8])) -> Result<(), SseError> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return extend(&mut self.line, rest);
            };
            extend(&mut self.line, &rest[..end])?;
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(&mut on_data)?;
        }
        Ok(())
    }

    /// Whether bytes of an unfinished event are held: a stream that ends here was cut.
    pub fn is_mid_event(&self) -> bool {
        !self.line.is_empty() || self.has_data
    }

    fn end_line(&mut self, on_data: &mut impl FnMut(&[u8])) -> Result<(), SseError> {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !std::mem::replace(&mut self.past_first_line, true) {
            text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
        }
        if text.is_empty() {
            if std::mem::take(&mut self.has_data) {
                on_data(&self.data);
            }
            self.data.clear();
        } else if let Some(value) = data_value(text) {
            if std::mem::replace(&mut self.has_data, true) {
                extend(&mut self.data, b"\n")?;
            }
            extend(&mut self.data, value)?;
        }
        // The allocation is worth keeping: a stream has hundreds of lines of one size.
        self.line = line;
        self.line.clear();
        Ok(())
    }
}

/// The value of a `data` line; `None` for comments and for other fields, which we do not use.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    match rest.split_first() {
        None => Some(rest),
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        Some(_) => None,
    }
}

fn extend(buffer: &mut Vec<u8>, bytes: &[u8]) -> Result<(), SseError> {
    if buffer.len() + bytes.len() > MAX_EVENT_BYTES {
        return Err(SseError::TooLarge);
    }
    buffer.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests;
