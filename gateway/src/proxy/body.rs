//! A request's body, read once: under a cap, a deadline and a budget over all requests.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora_proxy::Session;
use prometheus::IntGauge;
use tokio::time::timeout;

use super::buffer_pool::BufferPool;
use crate::refuse::Refuse;

/// Bytes that all requests together may hold. The gauge is the budget's own count, so that what is
/// refused by and what is shown are one number.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget {
    limit: i64,
    held: IntGauge,
    buffers: BufferPool,
}

/// Bytes taken from the budget, given back on drop.
#[derive(Debug)]
struct Share {
    budget: BodyBudget,
    bytes: i64,
}

/// A body in memory, with its share of the budget.
#[derive(Debug)]
pub(super) struct Body {
    /// The whole body.
    pub bytes: Bytes,
    share: Share,
}

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Longest body in bytes.
    pub bytes: usize,
    /// From the head's end to the body's end.
    pub deadline: Duration,
}

/// What a chunked body is expected to be before it is read.
const FIRST_GUESS: usize = 16 << 10;

/// Room that a declared length alone may claim; beyond it, room grows with what has come.
const FIRST_CLAIM: usize = 1 << 20;

// === impl BodyBudget ===

impl BodyBudget {
    /// A budget of so many bytes, counted in `held`.
    #[must_use]
    pub(crate) fn new(bytes: usize, held: IntGauge) -> Self {
        let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
        Self { limit, held, buffers: BufferPool::default() }
    }

    fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

// === impl Share ===

impl Share {
    /// Takes so many bytes more. What does not fit is taken back at once, so that the count is never
    /// above the limit for longer than that.
    fn grow(&mut self, bytes: usize) -> Result<(), Refuse> {
        let bytes = i64::try_from(bytes).map_err(|_beyond| Refuse::TooManyBodies)?;
        let held = &self.budget.held;
        held.add(bytes);
        if held.get() > self.budget.limit {
            held.sub(bytes);
            return Err(Refuse::TooManyBodies);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.sub(self.bytes);
    }
}

// === impl Body ===

impl Body {
    /// Reads the whole body of `session`.
    ///
    /// The declared length is held against the cap before anything is read, and before the client
    /// is told to continue. The budget is charged with the bytes that have come: a promise of bytes
    /// takes nobody's place.
    ///
    /// # Errors
    /// Too large, too slow, broken, or no room for it.
    pub(super) async fn read(
        session: &mut Session,
        bounds: Bounds,
        budget: &BodyBudget,
    ) -> Result<Self, Refuse> {
        let declared = declared_length(session);
        if declared.is_some_and(|length| length > bounds.bytes) {
            return Err(Refuse::BodyTooLarge { limit: bounds.bytes });
        }
        if expects_continue(session) {
            session.write_continue_response().await.map_err(|_gone| Refuse::BodyBroken)?;
        }
        let reading = pin!(Self::collect(session, bounds.bytes, declared, budget.share()));
        timeout(bounds.deadline, reading).await.map_err(|_elapsed| Refuse::BodyTooSlow)?
    }

    async fn collect(
        session: &mut Session,
        limit: usize,
        declared: Option<usize>,
        mut share: Share,
    ) -> Result<Self, Refuse> {
        let mut bytes = BytesMut::new();
        loop {
            let piece = session.downstream_session.read_request_body().await;
            let Some(piece) = piece.map_err(|_broken| Refuse::BodyBroken)? else { break };
            if bytes.len() + piece.len() > limit {
                return Err(Refuse::BodyTooLarge { limit });
            }
            share.grow(piece.len())?;
            if bytes.is_empty() && declared == Some(piece.len()) {
                return Ok(Self { bytes: piece, share });
            }
            if bytes.capacity() == 0 {
                let room = declared.unwrap_or(FIRST_GUESS).min(FIRST_CLAIM);
                bytes = share.budget.buffers.take(room);
            }
            bytes.extend_from_slice(&piece);
        }
        if declared.is_some_and(|length| length != bytes.len()) {
            return Err(Refuse::BodyBroken);
        }
        Ok(Self { bytes: bytes.freeze(), share })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.share.budget.buffers.give(std::mem::take(&mut self.bytes));
    }
}

fn declared_length(session: &Session) -> Option<usize> {
    let value = session.req_header().headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

fn expects_continue(session: &Session) -> bool {
    session
        .req_header()
        .headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_on_drop_and_a_full_budget_refuses() {
        let held = IntGauge::new("held", "held").unwrap();
        let budget = BodyBudget::new(10_000, held.clone());
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow(1_500).unwrap();
        first.grow(7_000).unwrap();
        assert_eq!(held.get(), 8_500);
        assert!(matches!(second.grow(1_501), Err(Refuse::TooManyBodies)));
        assert_eq!(held.get(), 8_500, "what did not fit was not kept");
        second.grow(1_500).unwrap();
        drop(first);
        assert_eq!(held.get(), 1_500);
        drop(second);
        assert_eq!(held.get(), 0);
    }
}
