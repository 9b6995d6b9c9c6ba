//! A client of bare TCP that may send whatever it likes.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A connection to the gateway.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    buffer: BytesMut,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A POST with a body of this length.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\
         \r\n\r\n{body}",
        body.len()
    );
    head.into_bytes()
}

// === impl Wire ===

impl Wire {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).await.expect("the gateway listens");
        socket.set_nodelay(true).expect("a socket that is open");
        Self { socket, buffer: BytesMut::new() }
    }

    /// Sends bytes; a gateway that has closed already does not mind.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        within("the gateway reads", self.socket.write_all(bytes)).await.is_ok()
    }

    /// The next answer; none when the connection ends before a whole one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        within("an answer or an end", self.read_answer()).await
    }

    /// Waits for more bytes; false at the end.
    pub(crate) async fn more(&mut self) -> bool {
        let read = within("bytes or an end", self.socket.read_buf(&mut self.buffer)).await;
        read.is_ok_and(|read| read > 0)
    }

    /// Whether the connection ends, and nothing comes before that.
    pub(crate) async fn is_ended(&mut self) -> bool {
        !self.more().await && self.buffer.is_empty()
    }

    /// Exactly so many bytes; none when the connection ends before.
    pub(crate) async fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        within("bytes or an end", self.exactly(bytes)).await
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer.split_to(end)).to_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let body = if status == 100 {
            Vec::new()
        } else if field("transfer-encoding: chunked").is_some() {
            self.chunks().await?
        } else {
            self.exactly(field("content-length: ").map_or(0, |n| n.trim().parse().unwrap_or(0)))
                .await?
        };
        Some(Answer { status, head, body })
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n") {
                    break at;
                }
                self.fill().await?;
            };
            let size = std::str::from_utf8(&self.buffer[..end]).ok()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            self.buffer.advance(end + 2);
            body.extend(self.exactly(size).await?);
            self.exactly(2).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    async fn exactly(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < bytes {
            self.fill().await?;
        }
        Some(self.buffer.split_to(bytes).to_vec())
    }

    async fn fill(&mut self) -> Option<()> {
        let read = self.socket.read_buf(&mut self.buffer).await.ok()?;
        (read > 0).then_some(())
    }
}

// === impl Answer ===

impl Answer {
    /// `error.code`, if it is an error of the gateway's own.
    pub(crate) fn code(&self) -> String {
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or("none").to_owned()
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|it| it == line)
    }
}
