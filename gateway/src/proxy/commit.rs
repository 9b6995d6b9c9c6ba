//! When a pod's answer is begun for the client: not with its head, but with its first token.
//!
//! vLLM sends its 200 before the prefill. Until something of the answer is here, any failure can move
//! to another pod without the client's seeing it: so the head waits.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use router::continuation::{Stream, Writing, is_aborted};
use router::openai::{Api, StreamFormat};
use tokio::time::{Instant, timeout_at};

use super::Gateway;
use super::legs::Request;
use super::upstream::Answer;
use crate::request::failure::Failure;

/// How long an answer may be held back.
#[derive(Clone, Copy)]
struct Bounds {
    /// Since when a stream's first token is waited for, and for how long.
    since: Instant,
    first_token: Duration,
    /// Bytes of it.
    hold: usize,
}

// === impl Gateway ===

impl Gateway {
    /// An attempt's answer once there is something to begin with, within `limit` since `since`.
    pub(super) async fn begun(
        &self,
        answer: Result<Answer, Failure>,
        request: &Request<'_>,
        (since, first_token): (Instant, Duration),
    ) -> Result<Answer, Failure> {
        let answer = answer?;
        if answer.complaint_of_leg().is_some() {
            return Ok(answer);
        }
        // What nobody reads may be a sound that plays as it comes: it is not held.
        let is_read = request.query.api.is_some();
        let hold = if is_read { self.config.survive.hold.len() } else { 0 };
        let bounds = Bounds { since, first_token, hold };
        answer.committed((request.format, request.query.api), bounds).await
    }
}

// === impl Answer ===

impl Answer {
    /// Waits until there is something to begin with: a stream's first token, or all of a plain answer,
    /// if it is not too long.
    async fn committed(
        mut self,
        (format, api): (Option<StreamFormat>, Option<Api>),
        bounds: Bounds,
    ) -> Result<Self, Failure> {
        match format.filter(|_| self.head.status == StatusCode::OK && self.is_event_stream()) {
            Some(format) => {
                let mut stream = Box::new(Stream::new(format));
                let deadline = bounds.since + bounds.first_token;
                let token = self.first_token(&mut stream, bounds.hold);
                timeout_at(deadline, token).await.unwrap_or(Err(Failure::TooLate))?;
                self.stream = Some(stream);
            }
            None if self.head.status.is_success() && !self.is_event_stream() => {
                self.whole(bounds.hold).await?;
                let said = self.first.as_deref().unwrap_or_default();
                if self.ended && api.is_some_and(|api| is_aborted(api, said)) {
                    return Err(Failure::ErrorEvent);
                }
            }
            None => {}
        }
        Ok(self)
    }

    /// Reads up to the first token; what the client gets of it is the answer's first bytes.
    async fn first_token(&mut self, stream: &mut Stream, hold: usize) -> Result<(), Failure> {
        let mut out = Vec::new();
        loop {
            let Some(bytes) = self.first.take() else {
                // It closed as if all were said, and nothing was.
                return if stream.is_unfinished() { Err(Failure::Cut) } else { self.ends(out) };
            };
            stream.feed(&bytes, &mut out);
            match stream.state() {
                Writing::Failed => return Err(Failure::ErrorEvent),
                Writing::Nothing if out.len() <= hold => {}
                _ => break,
            }
            self.first = self.connection.read().await?;
        }
        self.first = Some(Bytes::from(out));
        Ok(())
    }

    fn ends(&mut self, out: Vec<u8>) -> Result<(), Failure> {
        self.first = Some(Bytes::from(out));
        self.ended = true;
        Ok(())
    }

    /// Reads to the end, or to more than may be held.
    async fn whole(&mut self, hold: usize) -> Result<(), Failure> {
        let Some(first) = self.first.take() else {
            self.ended = true;
            return Ok(());
        };
        let mut held = Vec::from(first);
        while held.len() <= hold {
            match self.connection.read().await? {
                Some(bytes) => held.extend_from_slice(&bytes),
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        self.first = Some(Bytes::from(held));
        Ok(())
    }
}
