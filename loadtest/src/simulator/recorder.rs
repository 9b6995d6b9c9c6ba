//! The last requests, byte for byte as they arrived.

use std::collections::VecDeque;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Requests kept.
const MAX_REQUESTS: usize = 256;

/// Body bytes kept, over all requests.
const MAX_BYTES: usize = 64 << 20;

/// A request as a pod received it.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case, in order of arrival.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A bounded ring of requests.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    requests: VecDeque<Recorded>,
    bytes: usize,
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn record(&self, request: Recorded) {
        let mut ring = self.0.lock();
        ring.bytes += request.body.len();
        ring.requests.push_back(request);
        while ring.requests.len() > MAX_REQUESTS || ring.bytes > MAX_BYTES {
            let Some(oldest) = ring.requests.pop_front() else { break };
            ring.bytes -= oldest.body.len();
        }
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Vec<Recorded> {
        self.0.lock().requests.iter().cloned().collect()
    }
}

// === impl Recorded ===

impl Recorded {
    /// The body as `body` if it is UTF-8, else as `body_hex`.
    pub(super) fn json(&self) -> Value {
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
        };
        let headers: Vec<Value> = self.headers.iter().map(header).collect();
        let mut object = json!({
            "method": self.method, "path": self.path, "headers": headers,
            "body_bytes": self.body.len(),
        });
        match std::str::from_utf8(&self.body) {
            Ok(text) => object["body"] = text.into(),
            Err(_) => object["body_hex"] = hex(&self.body).into(),
        }
        object
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
