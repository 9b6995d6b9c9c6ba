//! What the readers of YAML and of settings say, in words for people who do not know them.

/// The reader's beginning of a complaint, and ours.
const WORDS: [(&str, &str); 15] = [
    ("expected sequence start", "must be a list"),
    ("expected mapping start", "must be a map of keys and values"),
    ("expected string scalar", "must be one text"),
    ("invalid boolean", "must be `true` or `false`"),
    ("invalid floating point", "must be a number"),
    ("invalid socket address", "must be an address with a port, like `0.0.0.0:8080`"),
    ("invalid u", "must be a whole number, not below 0"),
    ("invalid type: sequence", "must not be a list"),
    ("invalid type: map", "must not be a map"),
    ("invalid value: integer", "must be a whole number, not below 0"),
    ("invalid type: floating point", "must be a whole number, not below 0"),
    ("invalid type: string", "must be of another type"),
    ("invalid type: integer", "must be of another type"),
    ("invalid type: boolean", "must be of another type"),
    ("invalid type: null", "must not be empty"),
];

/// A complaint about a value in our words. `line` is the line of the file up to the value, from which
/// the key is told.
pub(super) fn plain(complaint: &str, line: &str) -> String {
    if let Some(rest) = complaint.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(',').next().unwrap_or(rest);
        return format!("the key `{key}` is written twice");
    }
    let Some((_, words)) = WORDS.iter().find(|(theirs, _)| complaint.starts_with(theirs)) else {
        return complaint.to_owned();
    };
    match key_before(line) {
        Some(key) => format!("`{key}` {words}"),
        None => (*words).to_owned(),
    }
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
    use super::*;

    #[test]
    fn complaints_name_the_key_and_what_it_takes() {
        for (complaint, line, ours) in [
            ("expected sequence start", "endpoints: ", "`endpoints` must be a list"),
            ("invalid u64", "  connections: ", "`connections` must be a whole number, not below 0"),
            ("invalid boolean", "log: {access: ", "`access` must be `true` or `false`"),
            ("expected mapping start", "- ", "must be a map of keys and values"),
            (
                "duplicate mapping key: threads, set DuplicateKeyPolicy in Options if acceptable",
                "",
                "the key `threads` is written twice",
            ),
            ("`1x` is no duration", "connect: ", "`1x` is no duration"),
        ] {
            assert_eq!(plain(complaint, line), ours);
        }
    }
}
