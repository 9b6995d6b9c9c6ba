//! What the reader of YAML says, in words for people who do not know it.

use std::net::SocketAddr;

use serde_saphyr::{Error, MessageFormatter as _, UserMessageFormatter};

/// A complaint about a value in our words. `line` is the line of the file up to the value, from which
/// the key is told.
pub(super) fn plain(error: &Error, line: &str) -> String {
    if let Error::DuplicateMappingKey { key, .. } = error {
        return format!("the key `{}` is written twice", key.as_deref().unwrap_or_default());
    }
    let Some(words) = what_it_must_be(error) else {
        return UserMessageFormatter.format_message(error).into_owned();
    };
    match key_before(line) {
        Some(key) => format!("`{key}` {words}"),
        None => words,
    }
}

/// Of a value that is of the wrong kind; none of another error, which says itself what is wrong.
fn what_it_must_be(error: &Error) -> Option<String> {
    let words = match error {
        Error::Unexpected { expected: "sequence start", .. } => "must be a list",
        Error::Unexpected { expected: "mapping start", .. } => "must be a map of keys and values",
        Error::Unexpected { expected: "string scalar", .. } => "must be one text",
        Error::InvalidScalar { ty: "boolean", .. } => "must be `true` or `false`",
        Error::InvalidScalar { ty: "floating point", .. } => "must be a number",
        Error::InvalidScalar { ty, .. } if ty.starts_with('u') => WHOLE_NUMBER,
        Error::NullIntoString { .. } => "must not be empty",
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            return Some(format!("must be {expected}, not {unexpected}"));
        }
        Error::Message { msg, .. } if is_of_address(msg) => {
            return Some(format!("must be {ADDRESS}"));
        }
        _ => return None,
    };
    Some(words.to_owned())
}

/// What a number in the settings must be that is none with a fraction.
pub(super) const WHOLE_NUMBER: &str = "must be a whole number, not below 0";

/// What an address to listen on is.
const ADDRESS: &str = "an IP address with a port, like `0.0.0.0:8080`";

/// A complaint about the text of a flag or a variable, in our words where `message` has none.
pub(super) fn plain_text(message: String, text: &str) -> String {
    if is_of_address(&message) { format!("`{text}` is not {ADDRESS}") } else { message }
}

/// Whether the standard library says this of what is no address and port.
fn is_of_address(message: &str) -> bool {
    "".parse::<SocketAddr>().is_err_and(|error| message == error.to_string())
}

/// The key whose value begins at the end of this text: the word before the last colon.
fn key_before(line: &str) -> Option<&str> {
    let before = line.trim_end().strip_suffix(':')?;
    let is_of_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let start = before.rfind(|c| !is_of_key(c)).map_or(0, |at| at + 1);
    Some(&before[start..]).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_saphyr::Location;

    use super::*;

    #[test]
    fn complaints_name_the_key_and_what_it_takes() {
        let location = Location::UNKNOWN;
        let message = |text: &str| Error::Message { msg: text.to_owned(), location };
        let twice = Error::DuplicateMappingKey { key: Some("threads".to_owned()), location };
        for (error, line, ours) in [
            (
                Error::Unexpected { expected: "sequence start", location },
                "endpoints: ",
                "`endpoints` must be a list",
            ),
            (
                Error::InvalidScalar { ty: "u64", location },
                "  connections: ",
                "`connections` must be a whole number, not below 0",
            ),
            (
                Error::InvalidScalar { ty: "boolean", location },
                "log: {access: ",
                "`access` must be `true` or `false`",
            ),
            (
                Error::Unexpected { expected: "mapping start", location },
                "- ",
                "must be a map of keys and values",
            ),
            (twice, "", "the key `threads` is written twice"),
            (
                message("invalid socket address syntax"),
                "listen: ",
                "`listen` must be an IP address with a port, like `0.0.0.0:8080`",
            ),
            (message("`1x` is no duration"), "connect: ", "`1x` is no duration"),
        ] {
            assert_eq!(plain(&error, line), ours);
        }
    }
}
