//! Shapes that the recorded frames do not have: written by hand.

use rmp::encode as w;

use super::*;
use crate::event::{EngineHash, ExtraKey};

/// One event in a batch of three elements.
fn batch(event: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = head(3);
    event(&mut bytes);
    w::write_uint(&mut bytes, 4).expect("memory");
    bytes
}

fn head(elements: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    w::write_array_len(&mut bytes, elements).expect("memory");
    w::write_f64(&mut bytes, 1.5).expect("memory");
    w::write_array_len(&mut bytes, 1).expect("memory");
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    w::write_str(bytes, text).expect("memory");
}

fn nil(bytes: &mut Vec<u8>) {
    w::write_nil(bytes).expect("memory");
}

fn array(bytes: &mut Vec<u8>, numbers: &[u64]) {
    w::write_array_len(bytes, u32::try_from(numbers.len()).expect("few")).expect("memory");
    for number in numbers {
        w::write_uint(bytes, *number).expect("memory");
    }
}

/// The fields that every version has: two blocks of two tokens.
fn stored_array(bytes: &mut Vec<u8>, elements: u32) {
    w::write_array_len(bytes, elements).expect("memory");
    text(bytes, "BlockStored");
    array(bytes, &[7, 8]);
    nil(bytes);
    array(bytes, &[1, 2, 3, 4]);
    w::write_uint(bytes, 2).expect("memory");
}

fn only(payload: &[u8]) -> Event {
    let mut batch = decode(payload).expect("it can be read");
    assert_eq!(batch.events.len(), 1);
    batch.events.remove(0)
}

fn stored(payload: &[u8]) -> Stored {
    let Event::Stored(stored) = only(payload) else { unreachable!("it is a store") };
    stored
}

use crate::event::Stored;

#[test]
fn an_array_event_of_the_older_form_is_read_by_position() {
    let payload = batch(|bytes| {
        stored_array(bytes, 9);
        w::write_uint(bytes, 3).expect("memory");
        text(bytes, "CPU");
        text(bytes, "sql");
        w::write_array_len(bytes, 2).expect("memory");
        w::write_array_len(bytes, 2).expect("memory");
        text(bytes, "sql");
        text(bytes, "salt");
        w::write_array_len(bytes, 1).expect("memory");
        array(bytes, &[300, 5]);
    });
    let batch = decode(&payload).expect("it can be read");
    assert_eq!((batch.rank, batch.skipped), (Some(4), Skipped::default()));
    let expected = Stored {
        blocks: vec![EngineHash(7), EngineHash(8)],
        tokens: vec![1, 2, 3, 4],
        block_tokens: 2,
        adapter: Some("sql".to_owned()),
        extra_keys: vec![
            vec![ExtraKey::Text("salt".to_owned())],
            vec![ExtraKey::Opaque(vec![0x92, 0xcd, 1, 44, 5])],
        ],
        medium: Medium::Cpu,
        ..Stored::default()
    };
    assert_eq!(batch.events, [Event::Stored(expected)]);
}

#[test]
fn an_array_event_may_end_early_and_a_batch_without_a_rank_has_none() {
    let mut payload = head(2);
    stored_array(&mut payload, 5);
    let batch = decode(&payload).expect("it can be read");
    assert_eq!(batch.rank, None);
    assert!(matches!(&batch.events[..], [Event::Stored(it)] if it.medium == Medium::Gpu));
}

#[test]
fn the_array_forms_of_removal_and_clearing_are_read() {
    let payload = batch(|bytes| {
        w::write_array_len(bytes, 3).expect("memory");
        text(bytes, "BlockRemoved");
        array(bytes, &[9]);
        text(bytes, "STORAGE");
    });
    let expected = Removed { blocks: vec![EngineHash(9)], medium: Medium::Storage, group: 0 };
    assert_eq!(only(&payload), Event::Removed(expected));
    let payload = batch(|bytes| {
        w::write_array_len(bytes, 1).expect("memory");
        text(bytes, "AllBlocksCleared");
    });
    assert_eq!(only(&payload), Event::Cleared);
}

#[test]
fn what_is_not_known_is_skipped_and_counted() {
    let payload = batch(|bytes| {
        w::write_map_len(bytes, 2).expect("memory");
        text(bytes, "from_the_future");
        array(bytes, &[1]);
        text(bytes, "type");
        text(bytes, "BlockPinned");
    });
    let batch_ = decode(&payload).expect("it can be read");
    assert_eq!((batch_.events.len(), batch_.skipped.events), (0, 1));

    let payload = batch(|bytes| {
        w::write_map_len(bytes, 3).expect("memory");
        text(bytes, "from_the_future");
        w::write_map_len(bytes, 1).expect("memory");
        text(bytes, "a");
        array(bytes, &[1, 2]);
        text(bytes, "type");
        text(bytes, "BlockRemoved");
        text(bytes, "block_hashes");
        array(bytes, &[1]);
    });
    let batch_ = decode(&payload).expect("it can be read");
    assert_eq!((batch_.events.len(), batch_.skipped.fields), (1, 1));
}

#[test]
fn an_event_in_an_unknown_medium_is_passed_over_not_guessed() {
    let payload = batch(|bytes| {
        w::write_array_len(bytes, 3).expect("memory");
        text(bytes, "BlockRemoved");
        array(bytes, &[9]);
        text(bytes, "TAPE");
    });
    let batch = decode(&payload).expect("it can be read");
    assert_eq!((batch.events.len(), batch.skipped.events), (0, 1));
}

#[test]
fn an_adapter_known_by_its_number_alone_is_not_the_base_model() {
    let payload = batch(|bytes| {
        stored_array(bytes, 6);
        w::write_uint(bytes, 3).expect("memory");
    });
    assert_eq!(stored(&payload).adapter.as_deref(), Some("\0lora_id=3"));
}

#[test]
fn a_hash_may_be_negative_or_bytes_but_never_less_than_eight() {
    let removed = |hash: &dyn Fn(&mut Vec<u8>)| {
        let payload = batch(|bytes| {
            w::write_array_len(bytes, 2).expect("memory");
            text(bytes, "BlockRemoved");
            w::write_array_len(bytes, 1).expect("memory");
            hash(bytes);
        });
        decode(&payload).map(|batch| batch.events)
    };
    let one = |hash| {
        let removed = Removed { blocks: vec![EngineHash(hash)], ..Removed::default() };
        Ok(vec![Event::Removed(removed)])
    };
    let bytes = |len: u8| (1..=len).collect::<Vec<u8>>();
    let bin = |len| move |to: &mut Vec<u8>| w::write_bin(to, &bytes(len)).expect("memory");
    assert_eq!(removed(&|to| drop(w::write_sint(to, -2))), one(u64::MAX - 1));
    assert_eq!(removed(&bin(16)), one(0x090a_0b0c_0d0e_0f10));
    assert!(removed(&bin(7)).is_err());
}

#[test]
fn tokens_that_are_not_those_of_the_blocks_are_an_error() {
    let payload = batch(|bytes| {
        w::write_array_len(bytes, 5).expect("memory");
        text(bytes, "BlockStored");
        array(bytes, &[7, 8]);
        nil(bytes);
        array(bytes, &[1, 2, 3]);
        w::write_uint(bytes, 2).expect("memory");
    });
    let expected = WireError::Tokens { blocks: 2, block_tokens: 2, tokens: 3 };
    assert_eq!(decode(&payload), Err(expected));
}

#[test]
fn a_store_without_tokens_names_blocks_and_one_without_a_block_size_is_passed_over() {
    for (block_tokens, events) in [(16, 1), (0, 0)] {
        let payload = batch(|bytes| {
            w::write_array_len(bytes, 5).expect("memory");
            text(bytes, "BlockStored");
            array(bytes, &[7, 8]);
            nil(bytes);
            array(bytes, &[]);
            w::write_uint(bytes, block_tokens).expect("memory");
        });
        let batch = decode(&payload).expect("it can be read");
        assert_eq!(batch.events.len(), events);
        assert_eq!(batch.skipped.events as usize, 1 - events);
    }
}

#[test]
fn a_declared_length_beyond_the_payload_is_an_error_at_once() {
    for hostile in [
        &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
        &[0x93, 0x00, 0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0x93, 0x00, 0x91, 0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0x93, 0x00, 0x91, 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(decode(hostile), Err(WireError::Truncated), "{hostile:x?}");
    }
}

#[test]
fn a_value_nested_deeper_than_any_stack_is_skipped_without_one() {
    let depth = 1 << 20;
    let payload = batch(|bytes| {
        w::write_map_len(bytes, 2).expect("memory");
        text(bytes, "type");
        text(bytes, "AllBlocksCleared");
        text(bytes, "deep");
        bytes.extend(std::iter::repeat_n(0x91, depth));
        nil(bytes);
    });
    assert_eq!(decode(&payload).map(|batch| batch.skipped.fields), Ok(1));
}

/// A store of two blocks as a map, in which the extra keys come before what they are the keys of.
fn stored_map(extra_keys: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    batch(|bytes| {
        w::write_map_len(bytes, 5).expect("memory");
        text(bytes, "type");
        text(bytes, "BlockStored");
        text(bytes, "extra_keys");
        extra_keys(bytes);
        text(bytes, "block_hashes");
        array(bytes, &[7, 8]);
        text(bytes, "token_ids");
        array(bytes, &[1, 2, 3, 4]);
        text(bytes, "block_size");
        w::write_uint(bytes, 2).expect("memory");
    })
}

#[test]
fn extra_keys_are_a_list_for_each_block_wherever_they_stand() {
    let lists = |lists: usize| {
        stored_map(|bytes| {
            w::write_array_len(bytes, u32::try_from(lists).expect("few")).expect("memory");
            (1..lists).for_each(|_| nil(bytes));
            array(bytes, &[5]);
        })
    };
    let keys = [vec![], vec![ExtraKey::Opaque(vec![5])]];
    assert_eq!(stored(&lists(2)).extra_keys, keys);
    for extra_keys in [1, 3] {
        let expected = WireError::ExtraKeys { blocks: 2, extra_keys };
        assert_eq!(decode(&lists(extra_keys)), Err(expected));
    }
    assert!(stored(&stored_map(nil)).extra_keys.is_empty());
}

#[test]
fn a_block_with_more_keys_than_any_has_is_an_error() {
    let keys = |keys: usize| {
        stored_map(|bytes| {
            w::write_array_len(bytes, 2).expect("memory");
            array(bytes, &vec![5; keys]);
            nil(bytes);
        })
    };
    assert_eq!(stored(&keys(64)).extra_keys[0].len(), 64);
    assert!(decode(&keys(65)).is_err());
}
