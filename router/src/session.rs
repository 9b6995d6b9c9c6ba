//! One session key out of the many ways in which clients send one.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header under which the key goes on to the pod.
pub const SESSION_HEADER: HeaderName = HeaderName::from_static("x-session-id");

/// Headers that may carry the key, the first that is there wins.
const HEADERS: [&str; 3] = ["x-session-id", "session-id", "x-session-token"];

/// Cookies that may carry it, looked at when no header does.
const COOKIES: [&str; 3] = ["session-id", "session_id", "session"];

/// Longest key that is taken; a longer one is no key. It is hashed, logged and sent on.
pub const MAX_KEY_BYTES: usize = 256;

/// The session key of a request: its full value, `=` included.
#[must_use]
pub fn key(headers: &HeaderMap) -> Option<&str> {
    let header = |name: &&str| headers.get(*name).and_then(|value| value.to_str().ok());
    HEADERS
        .iter()
        .find_map(header)
        .or_else(|| COOKIES.iter().find_map(|name| cookie(headers, name)))
        .map(str::trim)
        .filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then(|| value.trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(headers: &[(&str, &str)]) -> Option<String> {
        let map: HeaderMap = headers
            .iter()
            .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
            .collect();
        key(&map).map(str::to_owned)
    }

    #[test]
    fn every_spelling_is_found_in_order_and_whole() {
        let long = "x".repeat(MAX_KEY_BYTES + 1);
        for (headers, want) in [
            (vec![("x-session-id", "a=b==")], Some("a=b==")),
            (vec![("session-id", "b"), ("x-session-id", "a")], Some("a")),
            (vec![("x-session-token", "bnMvcG9k"), ("cookie", "session=c")], Some("bnMvcG9k")),
            (vec![("cookie", "theme=x; session_id=c=1; session=d")], Some("c=1")),
            (vec![("cookie", "session-id=\"q\"")], Some("q")),
            (vec![("cookie", "mysession=no")], None),
            (vec![("x-session-id", " ")], None),
            (vec![("x-session-id", long.as_str())], None),
            (vec![], None),
        ] {
            assert_eq!(key_of(&headers).as_deref(), want, "{headers:?}");
        }
    }
}
