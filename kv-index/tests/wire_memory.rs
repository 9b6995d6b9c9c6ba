//! A frame that means ill costs little more memory than it is long.

use std::alloc::System;

use kv_index::wire::decode;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const MANY: u32 = 100_000;

/// `[0.0, [event]]`, where the event stores so many blocks and has so many empty lists of extra keys.
fn payload(blocks: u32, lists: u32) -> Vec<u8> {
    let mut bytes = b"\x92\xcb\0\0\0\0\0\0\0\0\x91\x99\xabBlockStored\xdd".to_vec();
    bytes.extend(blocks.to_be_bytes());
    bytes.extend(std::iter::repeat_n(7, blocks as usize));
    // No parent, no tokens, 16 to a block, no adapter, no medium, no adapter's name.
    bytes.extend(b"\xc0\x90\x10\xc0\xc0\xc0\xdd");
    bytes.extend(lists.to_be_bytes());
    bytes.extend(std::iter::repeat_n(0xc0, lists as usize));
    bytes
}

#[test]
fn empty_lists_of_extra_keys_cost_nothing() {
    for (blocks, is_good, most) in [(MANY, true, 8 * MANY as usize + 4096), (1, false, 4096)] {
        let payload = payload(blocks, MANY);
        let region = Region::new(ALLOCATOR);
        assert_eq!(decode(&payload).is_ok(), is_good);
        let allocated = region.change().bytes_allocated;
        assert!(allocated <= most, "{allocated} bytes for {blocks} blocks");
    }
}
