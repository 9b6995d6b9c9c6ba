//! One session key out of the many ways in which clients send one.

use std::fmt;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The header under which the key goes on to the pod.
pub const SESSION_HEADER: HeaderName = HeaderName::from_static("x-session-id");

/// A request's session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionKey {
    /// The full value, as the client sent it.
    pub value: Arc<str>,
    /// Whether it came from where login tokens travel too, so that no log may show it.
    pub is_secret: bool,
}

/// Headers that may carry the key, the first that is there wins.
const HEADERS: [&str; 2] = ["x-session-id", "session-id"];

/// Where it may be found when they are not there, beside what may be a credential.
const TOKEN_HEADER: &str = "x-session-token";
const COOKIES: [&str; 3] = ["session-id", "session_id", "session"];

/// Longest key that is taken; a longer one is no key. It is hashed, logged and sent on.
pub const MAX_KEY_BYTES: usize = 256;

/// The session key of a request: its full value, `=` included.
#[must_use]
pub fn key(headers: &HeaderMap) -> Option<SessionKey> {
    // An empty header says nothing, and hides none of the others.
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        value.filter(|value| !value.is_empty())
    };
    let open = HEADERS.iter().find_map(|name| header(name));
    let secret = || {
        let token = header(TOKEN_HEADER);
        token.or_else(|| COOKIES.iter().find_map(|name| cookie(headers, name)))
    };
    let value = open.or_else(secret).map(str::trim)?;
    let fits = !value.is_empty() && value.len() <= MAX_KEY_BYTES;
    fits.then(|| SessionKey { value: value.into(), is_secret: open.is_none() })
}

// === impl SessionKey ===

/// As logs may show it: a secret one as a fingerprint of 64 bits, which still tells sessions apart.
impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_secret {
            let fingerprint = xxhash_rust::xxh3::xxh3_64(self.value.as_bytes());
            return write!(f, "fingerprint:{fingerprint:016x}");
        }
        f.write_str(&self.value)
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value: &HeaderValue| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value.trim_matches('"'))
        .find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(headers: &[(&str, &str)]) -> Option<String> {
        let map: HeaderMap = headers
            .iter()
            .map(|(k, v)| (k.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap()))
            .collect();
        key(&map).map(|key| key.value.to_string())
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
            (vec![("x-session-id", ""), ("session-id", "b")], Some("b")),
            (vec![("session-id", " "), ("cookie", "session_id=; session=d")], Some("d")),
            (vec![("x-session-id", long.as_str())], None),
            (vec![], None),
        ] {
            assert_eq!(key_of(&headers).as_deref(), want, "{headers:?}");
        }
    }

    #[test]
    fn what_may_be_a_credential_is_shown_as_a_fingerprint() {
        let shown = |name: &'static str, value: &'static str| {
            let value = HeaderValue::from_static(value);
            key(&HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
                .unwrap()
                .to_string()
        };
        assert_eq!(shown("x-session-id", "alice"), "alice");
        assert_eq!(shown("cookie", "session=s3cret").len(), "fingerprint:".len() + 16);
        assert!(!shown("x-session-token", "s3cret").contains("s3cret"));
    }
}
