//! A connection that is turned away before it became a request: its answer, and its line in the log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use pingora_core::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::refuse::{LINGER, Refuse, Shape};
use crate::telemetry::access_log::Record;
use crate::{decision, head};

/// A head that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Why.
    pub refuse: Refuse,
    request_id: String,
    method: String,
    target: String,
    client: Option<SocketAddr>,
    ended: Timestamp,
    /// From its first byte to the refusal.
    took: Duration,
}

// === impl Refused ===

impl Refused {
    /// `bytes` are what came of the head, the first of them at `first_byte`.
    pub(super) fn new(refuse: Refuse, first_byte: Instant, bytes: &[u8], stream: &Stream) -> Self {
        let (method, target) = head::request_line(bytes);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let digest = stream.get_socket_digest();
        let client = digest.and_then(|digest| digest.peer_addr()?.as_inet().copied());
        Self {
            refuse,
            request_id: uuid::Uuid::new_v4().to_string(),
            method: text(method),
            target: text(target),
            client,
            ended: Timestamp::now(),
            took: first_byte.elapsed(),
        }
    }

    /// The whole answer.
    fn answer(&self) -> Bytes {
        let path = self.target.split('?').next().unwrap_or_default();
        self.refuse.raw_http1(Shape::of_path(path), &self.request_id)
    }

    /// Answers, and closes the connection.
    pub(super) async fn turn_away(&self, mut stream: Stream) {
        let bytes = self.answer();
        let answer = async {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
            AsyncWriteExt::shutdown(&mut stream).await?;
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await? > 0 {}
            Ok::<(), std::io::Error>(())
        };
        // The client may be gone or deaf: nothing more can be done for it.
        if !matches!(timeout(LINGER, answer).await, Ok(Ok(()))) {
            let status = StatusCode::from(&self.refuse);
            tracing::debug!(%status, "a refused client did not listen");
        }
    }

    /// Its line in the access log.
    pub(crate) fn record(&self) -> Record {
        Record {
            start_time: self.ended.checked_sub(self.took).unwrap_or(self.ended),
            method: self.method.as_str().into(),
            path: self.target.as_str().into(),
            protocol: "HTTP/1.1",
            response_code: self.refuse.status().as_u16(),
            duration: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            route_name: "none",
            request_id: self.request_id.as_str().into(),
            downstream_remote_address: self.client,
            total_ms: self.took.as_secs_f64() * 1e3,
            error: Some(self.refuse.reason()),
            decision: Some(decision::refused(self.refuse.reason())),
            ..Record::default()
        }
    }
}
