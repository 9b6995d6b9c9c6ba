//! A request's body, read once: under a cap, a deadline and a budget over all requests.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use parking_lot::Mutex;
use pingora_proxy::Session;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refuse::Refuse;

/// Bytes that all requests together may hold. A permit stands for a KiB, since a semaphore counts
/// in 32 bits.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget {
    kib: Arc<Semaphore>,
    spare: Spare,
}

/// A body in memory, with its share of the budget.
#[derive(Debug)]
pub(super) struct Body {
    /// The whole body.
    pub bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
    spare: Spare,
}

/// Bounds of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Longest body in bytes.
    pub bytes: usize,
    /// From the head's end to the body's end.
    pub deadline: Duration,
}

/// Buffers of long bodies, used again: a fresh one of this size comes from the kernel page by page,
/// each cleared, which costs more than filling it.
#[derive(Clone, Debug, Default)]
struct Spare(Arc<Mutex<Vec<BytesMut>>>);

/// So many buffers are kept, of so many bytes: 16 MiB at the most.
const SPARE_BUFFERS: usize = 16;
const SPARE_BYTES: RangeInclusive<usize> = (64 << 10)..=(1 << 20);

/// What a chunked body is expected to be before it is read.
const FIRST_GUESS: usize = 16 << 10;

// === impl BodyBudget ===

impl BodyBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub(crate) fn new(bytes: usize) -> Self {
        let kib = (bytes >> 10).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { kib: Arc::new(Semaphore::new(kib)), spare: Spare::default() }
    }

    fn take(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Refuse> {
        let Some(kib) = u32::try_from(bytes.div_ceil(1024)).ok().filter(|kib| *kib > 0) else {
            return Ok(None);
        };
        match Arc::clone(&self.kib).try_acquire_many_owned(kib) {
            Ok(share) => Ok(Some(share)),
            Err(_full) => Err(Refuse::TooManyBodies),
        }
    }
}

// === impl Body ===

impl Body {
    /// Reads the whole body of `session`.
    ///
    /// The declared length is looked at before anything is read, and before the client is told to
    /// continue.
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
        let share = budget.take(declared.unwrap_or(0))?;
        if expects_continue(session) {
            session.write_continue_response().await.map_err(|_gone| Refuse::BodyBroken)?;
        }
        let reading = Self::collect(session, bounds, budget, declared, share);
        timeout(bounds.deadline, reading).await.map_err(|_elapsed| Refuse::BodyTooSlow)?
    }

    async fn collect(
        session: &mut Session,
        bounds: Bounds,
        budget: &BodyBudget,
        declared: Option<usize>,
        mut share: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, Refuse> {
        let mut bytes = BytesMut::new();
        loop {
            let piece = session.downstream_session.read_request_body().await;
            let Some(piece) = piece.map_err(|_broken| Refuse::BodyBroken)? else { break };
            if bytes.is_empty() && declared == Some(piece.len()) {
                return Ok(Self { bytes: piece, _share: share, spare: budget.spare.clone() });
            }
            if bytes.len() + piece.len() > bounds.bytes {
                return Err(Refuse::BodyTooLarge { limit: bounds.bytes });
            }
            if bytes.capacity() == 0 {
                bytes = budget.spare.take(declared.unwrap_or(FIRST_GUESS));
            }
            if declared.is_none() {
                grow(&mut share, budget, bytes.len() + piece.len())?;
            }
            bytes.extend_from_slice(&piece);
        }
        if declared.is_some_and(|length| length != bytes.len()) {
            return Err(Refuse::BodyBroken);
        }
        Ok(Self { bytes: bytes.freeze(), _share: share, spare: budget.spare.clone() })
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.bytes));
    }
}

// === impl Spare ===

impl Spare {
    fn take(&self, bytes: usize) -> BytesMut {
        let spare = SPARE_BYTES.contains(&bytes).then(|| self.0.lock().pop()).flatten();
        let mut buffer = spare.unwrap_or_default();
        buffer.reserve(bytes);
        buffer
    }

    /// Keeps a buffer that nobody else reads any more.
    fn give(&self, bytes: Bytes) {
        if let Ok(mut buffer) = bytes.try_into_mut()
            && SPARE_BYTES.contains(&buffer.capacity())
        {
            let mut spare = self.0.lock();
            if spare.len() < SPARE_BUFFERS {
                buffer.clear();
                spare.push(buffer);
            }
        }
    }
}

/// Enlarges a share to cover `bytes`.
fn grow(
    share: &mut Option<OwnedSemaphorePermit>,
    budget: &BodyBudget,
    bytes: usize,
) -> Result<(), Refuse> {
    let covered = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) << 10;
    if bytes <= covered {
        return Ok(());
    }
    let more = budget.take(bytes - covered)?;
    match (share.as_mut(), more) {
        (Some(share), Some(more)) => share.merge(more),
        (None, more) => *share = more,
        (Some(_), None) => {}
    }
    Ok(())
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
        let budget = BodyBudget::new(10 << 10);
        let held = || (10 - budget.kib.available_permits()) << 10;
        let mut share = budget.take(1_500).unwrap();
        assert_eq!(held(), 2 << 10);
        grow(&mut share, &budget, 2_048).unwrap();
        assert_eq!(held(), 2 << 10, "2 KiB cover 2,048 bytes");
        grow(&mut share, &budget, 9 << 10).unwrap();
        assert_eq!(held(), 9 << 10);
        assert!(matches!(budget.take(2 << 10), Err(Refuse::TooManyBodies)));
        assert!(matches!(grow(&mut share, &budget, 11 << 10), Err(Refuse::TooManyBodies)));
        drop(share);
        assert_eq!(held(), 0);
    }
}
