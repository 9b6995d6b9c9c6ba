//! The wire: every recorded frame gives its golden events, and no bytes make the decoder panic.
//!
//! The golden files were written by another decoder (Python's msgspec) at the time of recording;
//! token ids are there as their count and FNV-1a checksum.

use std::fmt::Write as _;
use std::path::Path;

use kv_index::wire::{Batch, Skipped, WireError, decode};
use kv_index::{EngineHash, Event, ExtraKey, Medium, Stored};
use proptest::prelude::*;

const STREAMS: [&str; 5] = ["frames", "default", "lora_salt_evict", "publisher_connects", "bytes"];

fn fixture(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    std::fs::read_to_string(path).expect("the fixture is committed")
}

fn payloads(stream: &str) -> Vec<(String, Vec<u8>)> {
    let bytes = |hex: &str| {
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
        pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
    };
    fixture(&format!("{stream}.txt"))
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("a name and a payload"))
        .map(|(name, hex)| (name.to_owned(), bytes(hex)))
        .collect()
}

/// As the golden files have it.
fn golden(name: &str, batch: &Batch) -> String {
    let rank = batch.rank.expect("every recorded batch has a rank");
    let mut text = format!("{name} at={:?} rank={rank}\n", batch.published_at_s);
    for event in &batch.events {
        let line = match event {
            Event::Cleared => "cleared".to_owned(),
            Event::Removed(it) => format!(
                "removed blocks={} medium={} group={}",
                hashes(&it.blocks),
                word(it.medium),
                it.group
            ),
            Event::Stored(it) => golden_stored(it),
        };
        writeln!(text, "  {line}").expect("a string takes all");
    }
    text
}

fn golden_stored(it: &Stored) -> String {
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let extra = it.extra_keys.iter().map(|keys| {
        let texts = keys.iter().map(|key| match key {
            ExtraKey::Text(text) => text.clone(),
            ExtraKey::Opaque(bytes) => format!("{bytes:?}"),
        });
        texts.collect::<Vec<_>>().join("+")
    });
    format!(
        "stored blocks={} parent={} tokens={}:{:016x} block_tokens={} adapter={} extra={} \
         medium={} group={} window={} announcement={}",
        hashes(&it.blocks),
        dash(it.parent.map(|hash| hashes(&[hash])).unwrap_or_default()),
        it.tokens.len(),
        fnv(&it.tokens),
        it.block_tokens,
        dash(it.adapter.clone().unwrap_or_default()),
        dash(extra.collect::<Vec<_>>().join(",")),
        word(it.medium),
        it.group,
        dash(it.window.map(|tokens| tokens.to_string()).unwrap_or_default()),
        it.is_announcement
    )
}

fn word(medium: Medium) -> String {
    format!("{medium:?}").to_lowercase()
}

fn hashes(blocks: &[EngineHash]) -> String {
    blocks.iter().map(|hash| format!("{:016x}", hash.0)).collect::<Vec<_>>().join(",")
}

fn fnv(tokens: &[u32]) -> u64 {
    let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn every_recorded_frame_decodes_to_its_golden_events() {
    for stream in STREAMS {
        let ours: String = payloads(stream)
            .iter()
            .map(|(name, payload)| {
                let batch = decode(payload).unwrap_or_else(|error| panic_with(name, &error));
                assert_eq!(batch.skipped, Skipped::default(), "{name}: all of it is known");
                golden(name, &batch)
            })
            .collect();
        assert_eq!(ours, fixture(&format!("{stream}.golden")), "{stream}");
    }
}

fn panic_with(name: &str, error: &WireError) -> Batch {
    assert_eq!("", error.to_string(), "{name} cannot be read");
    Batch::default()
}

#[test]
fn every_cut_of_a_recorded_frame_is_an_error() {
    for (name, payload) in payloads("frames") {
        for len in 0..payload.len() {
            assert!(decode(&payload[..len]).is_err(), "{name} cut to {len}");
        }
        let mut longer = payload;
        longer.push(0xc0);
        assert_eq!(decode(&longer), Err(WireError::Trailing(1)), "{name}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(decode(&bytes));
    }

    #[test]
    fn random_events_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut payload = vec![0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0x91];
        payload.extend(bytes);
        drop(decode(&payload));
    }

    #[test]
    fn a_mutated_frame_never_panics_and_keeps_its_promises(
        at in any::<prop::sample::Index>(),
        frame in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 1..9),
    ) {
        let mut frames = payloads("frames");
        let (_, mut payload) = frames.swap_remove(frame.index(frames.len()));
        let at = at.index(payload.len());
        for (old, new) in payload[at..].iter_mut().zip(&bytes) {
            *old = *new;
        }
        if let Ok(batch) = decode(&payload) {
            for event in batch.events {
                if let Event::Stored(it) = event {
                    let wanted = it.blocks.len() * it.block_tokens as usize;
                    prop_assert!(it.tokens.is_empty() || it.tokens.len() == wanted);
                    prop_assert!(it.block_tokens > 0);
                    let extra = it.extra_keys.len();
                    prop_assert!(extra == 0 || extra == it.blocks.len());
                }
            }
        }
    }
}
