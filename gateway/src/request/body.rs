//! A request's body in memory: under a cap, and a budget over all requests.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use prometheus::IntGauge;

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
pub(crate) struct Body {
    /// The whole body.
    pub bytes: Bytes,
    share: Share,
}

/// A body that is on its way.
#[derive(Debug)]
pub(crate) struct Gathering {
    bytes: BytesMut,
    /// What it says that it is long, in bytes.
    declared: Option<usize>,
    limit: usize,
    share: Share,
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

    /// A body that begins. The declared length is held against the cap before anything is read.
    ///
    /// # Errors
    /// Too large by its own word.
    pub(crate) fn begin(&self, headers: &HeaderMap, limit: usize) -> Result<Gathering, Refuse> {
        let declared = declared_length(headers);
        if declared.is_some_and(|length| length > limit) {
            return Err(Refuse::BodyTooLarge { limit });
        }
        Ok(Gathering { bytes: BytesMut::new(), declared, limit, share: self.share() })
    }

    fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

// === impl Gathering ===

impl Gathering {
    /// Its next bytes. The budget is charged with what has come: a promise of bytes takes nobody's
    /// place.
    ///
    /// # Errors
    /// Too large, or no room for it.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), Refuse> {
        self.charge(piece.len())?;
        if self.bytes.capacity() == 0 {
            let room = self.declared.unwrap_or(FIRST_GUESS).min(FIRST_CLAIM);
            self.bytes = self.share.budget.buffers.take(room);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// It is whole.
    ///
    /// # Errors
    /// It is not as long as it said.
    pub(crate) fn finish(self) -> Result<Body, Refuse> {
        if self.declared.is_some_and(|length| length != self.bytes.len()) {
            return Err(Refuse::BodyBroken);
        }
        Ok(Body { bytes: self.bytes.freeze(), share: self.share })
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Refuse> {
        if self.bytes.len() + bytes > self.limit {
            return Err(Refuse::BodyTooLarge { limit: self.limit });
        }
        self.share.grow(bytes)
    }

    /// It is whole with this, which need not be copied if it is all of it.
    ///
    /// # Errors
    /// As [`Gathering::push`] and [`Gathering::finish`].
    pub(crate) fn finish_with(mut self, piece: Bytes) -> Result<Body, Refuse> {
        if !self.bytes.is_empty() {
            self.push(&piece)?;
            return self.finish();
        }
        self.charge(piece.len())?;
        if self.declared.is_some_and(|length| length != piece.len()) {
            return Err(Refuse::BodyBroken);
        }
        Ok(Body { bytes: piece, share: self.share })
    }

    /// Whether it is whole with a piece, by its own word.
    pub(crate) fn is_whole_with(&self, piece: &Bytes) -> bool {
        self.bytes.is_empty() && self.declared == Some(piece.len())
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

impl Drop for Body {
    fn drop(&mut self) {
        self.share.budget.buffers.give(std::mem::take(&mut self.bytes));
    }
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_comes_in_one_piece_is_not_copied() {
        let held = IntGauge::new("held", "held").unwrap();
        let budget = BodyBudget::new(10_000, held.clone());
        let begin = |limit| budget.begin(&HeaderMap::new(), limit).unwrap();
        let piece = Bytes::from(vec![b' '; 1_000]);
        let body = begin(1_000).finish_with(piece.clone()).unwrap();
        assert_eq!((body.bytes.as_ptr(), held.get()), (piece.as_ptr(), 1_000));
        assert!(matches!(begin(999).finish_with(piece.clone()), Err(Refuse::BodyTooLarge { .. })));
        let mut parts = begin(2_000);
        parts.push(&piece).unwrap();
        assert_eq!(parts.finish_with(piece).unwrap().bytes.len(), 2_000);
    }

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
