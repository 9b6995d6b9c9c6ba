//! Buffers of long bodies, used again.
//!
//! A fresh buffer of half a megabyte comes from the kernel page by page, each of them cleared,
//! which costs more than filling it; one of 32 KiB has left the cache when it is given out again.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// Buffers that nobody uses now.
#[derive(Clone, Debug, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Vec<BytesMut>>>);

/// So many are kept, of so many bytes: 16 MiB at the most.
const BUFFERS: usize = 16;
const BYTES: RangeInclusive<usize> = (16 << 10)..=(1 << 20);

// === impl BufferPool ===

impl BufferPool {
    /// An empty buffer with room for so many bytes.
    pub(crate) fn take(&self, bytes: usize) -> BytesMut {
        let kept = BYTES.contains(&bytes).then(|| self.0.lock().pop()).flatten();
        let mut buffer = kept.unwrap_or_default();
        buffer.reserve(bytes);
        buffer
    }

    /// Keeps a buffer, if nobody reads it any more and there is room.
    pub(crate) fn give(&self, bytes: Bytes) {
        let Ok(mut buffer) = bytes.try_into_mut() else { return };
        let mut kept = self.0.lock();
        if BYTES.contains(&buffer.capacity()) && kept.len() < BUFFERS {
            buffer.clear();
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_reads_it_and_only_so_many_are_kept() {
        let pool = BufferPool::default();
        let body = |fill: u8| {
            let mut buffer = pool.take(100_000);
            buffer.resize(100_000, fill);
            buffer.freeze()
        };
        let (first, reader) = (body(1), body(2));
        let address = first.as_ptr();
        pool.give(first);
        pool.give(reader.clone());
        assert_eq!(pool.0.lock().len(), 1, "one is still read");
        let again = body(3);
        assert_eq!((again.as_ptr(), again[0], again.len()), (address, 3, 100_000));
        assert_eq!(reader[99_999], 2);
        for buffer in (0..40).map(body).collect::<Vec<_>>() {
            pool.give(buffer);
        }
        assert_eq!(pool.0.lock().len(), BUFFERS);
        pool.give(Bytes::from(vec![0; 10 << 20]));
        assert!(pool.0.lock().iter().all(|buffer| BYTES.contains(&buffer.capacity())));
    }
}
