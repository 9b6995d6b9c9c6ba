//! A batch as it travels: vLLM's frames around the msgpack.

use bytes::Bytes;
use kv_index::Event;
use kv_index::wire::{self, Batch, WireError};

use super::sequence::Mark;
use super::trust::Arrival;

/// A message of the stream whose payload nobody has looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope<'a> {
    pub(super) topic: &'a Bytes,
    seq: u64,
    payload: &'a Bytes,
}

/// One batch, decoded or not.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) seq: u64,
    pub(super) batch: Result<Batch, WireError>,
    /// Bytes on the wire.
    pub(super) len: usize,
}

/// A reply to a request for history.
#[derive(Debug)]
pub(super) enum Told {
    Batch(Frame),
    /// That was all.
    End,
}

/// The sequence number that ends a replay: -1.
const END: u64 = u64::MAX;

// === impl Envelope ===

impl<'a> Envelope<'a> {
    /// Topic, number (eight bytes, big-endian), payload. None if the message has another form.
    pub(super) fn of(message: &'a [Bytes]) -> Option<Self> {
        let [topic, seq, payload] = message else { return None };
        Some(Self { topic, seq: number(seq)?, payload })
    }

    /// What is in it. That takes many times the memory of a payload that means ill.
    pub(super) fn open(self) -> Frame {
        Frame::new(self.seq, self.payload)
    }
}

// === impl Frame ===

impl Frame {
    fn new(seq: u64, payload: &[u8]) -> Self {
        Self { seq, batch: wire::decode(payload), len: payload.len() }
    }

    /// A message of the stream; none if it has another form.
    pub(super) fn published(message: &[Bytes]) -> Option<Self> {
        Envelope::of(message).map(Envelope::open)
    }

    /// What the trust in it depends on.
    pub(super) fn arrival(&self) -> Arrival {
        let batch = self.batch.as_ref().ok();
        Arrival {
            mark: Mark {
                seq: self.seq,
                published_at_s: batch.map_or(f64::NAN, |batch| batch.published_at_s),
            },
            clears: batch.is_some_and(|batch| batch.events.contains(&Event::Cleared)),
            readable: batch.is_some(),
        }
    }
}

// === impl Told ===

impl Told {
    /// A reply: an empty delimiter, the topic (not in older versions), number, payload; the last one
    /// has the number -1. None if it has another form.
    pub(super) fn read(message: &[Bytes]) -> Option<Self> {
        let (payload, rest) = message.split_last()?;
        let (seq, before) = rest.split_last()?;
        if before.len() > 2 {
            return None;
        }
        match number(seq)? {
            END => Some(Self::End),
            seq => Some(Self::Batch(Frame::new(seq, payload))),
        }
    }
}

fn number(frame: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(frame.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(frames: &[&'static [u8]]) -> Vec<Bytes> {
        frames.iter().map(|frame| Bytes::from_static(frame)).collect()
    }

    const SEVEN: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 7];
    /// `[0.0, [{"type": "AllBlocksCleared"}], 0]`.
    const CLEARED: &[u8] = b"\x93\xcb\0\0\0\0\0\0\0\0\x91\x81\xa4type\xb0AllBlocksCleared\x00";

    #[test]
    fn a_published_message_is_topic_number_payload() {
        let frame = Frame::published(&message(&[b"kv@a@b", SEVEN, CLEARED])).expect("it is one");
        assert_eq!(frame.seq, 7);
        assert!(frame.arrival().clears && frame.arrival().readable);
        assert!(Frame::published(&message(&[b"kv@a@b", SEVEN])).is_none());
        assert!(Frame::published(&message(&[b"kv@a@b", b"7", CLEARED])).is_none());
    }

    #[test]
    fn a_reply_may_lack_the_topic_as_older_versions_send_it() {
        for frames in [&[b"", b"kv@a@b" as &[u8], SEVEN, CLEARED][..], &[b"", SEVEN, CLEARED]] {
            let told = Told::read(&message(frames)).expect("it is one");
            assert!(matches!(told, Told::Batch(Frame { seq: 7, batch: Ok(_), .. })));
        }
        let end = message(&[b"", b"", &[0xff; 8], b""]);
        assert!(matches!(Told::read(&end), Some(Told::End)));
        assert!(matches!(Told::read(&message(&[b"", &[0xff; 8], b""])), Some(Told::End)));
        assert!(Told::read(&message(&[b""])).is_none());
        assert!(Told::read(&message(&[b"", b"", b"", SEVEN, b""])).is_none());
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_still_a_batch_with_a_number() {
        let frame = Frame::published(&message(&[b"", SEVEN, b"\xc1"])).expect("it is one");
        assert!(!frame.arrival().readable);
        assert_eq!(frame.arrival().mark.seq, 7);
    }
}
