use std::sync::Arc;

use serde_json::Value;

use super::*;

/// The recorded payload of that name.
fn recorded(name: &str) -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../kv-index/tests/fixtures/frames.txt");
    let text = std::fs::read_to_string(path).expect("the fixture is committed");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    let hex = line.expect("a frame of that name").as_bytes();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hex")
    };
    value(&hex.chunks(2).map(byte).collect::<Vec<_>>())
}

fn value(payload: &[u8]) -> Value {
    rmp_serde::from_slice(payload).expect("msgpack without bytes")
}

/// With every number and every text of the content replaced, so that only the form is left.
fn form(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| (key.clone(), form(value, key))).collect()
        }
        // One of each is enough: they are alike.
        Value::Array(items) if matches!(key, "token_ids" | "block_hashes") => {
            items.iter().take(1).map(|item| form(item, "")).collect()
        }
        Value::Array(items) => items.iter().map(|item| form(item, "")).collect(),
        Value::String(text) if matches!(key, "type" | "medium" | "kv_cache_spec_kind") => {
            text.as_str().into()
        }
        Value::String(_) => "text".into(),
        Value::Number(number) if number.is_f64() => "float".into(),
        Value::Number(_) => "integer".into(),
        other => other.clone(),
    }
}

fn stored(parent: Option<u64>, salt: &str) -> CacheEvent {
    let salt = Arc::from(salt);
    CacheEvent::Stored { keys: vec![u64::MAX], parent, tokens: vec![7; 32], salt }
}

fn ours(event: CacheEvent) -> Value {
    form(&value(&encode(1.5, &[event], 32)), "")
}

/// Keys come in their order: the maps keep it.
fn text(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("it is JSON")
}

#[test]
fn every_event_has_the_form_that_vllm_gives_it() {
    for (name, event) in [
        ("stored_root", stored(None, "")),
        ("stored_child_with_generated_tokens", stored(Some(9), "")),
        ("stored_cache_salt", stored(None, "tenant-A")),
        ("stored_lora", stored(None, "lora:lora-a\n")),
        ("all_blocks_cleared", CacheEvent::Cleared),
    ] {
        assert_eq!(text(&ours(event)), text(&form(&recorded(name), "")), "{name}");
    }
}

#[test]
fn a_removal_has_the_form_that_vllm_gives_it() {
    let real = form(&recorded("removed_batch")[1][0], "");
    assert_eq!(text(&ours(CacheEvent::Removed(5))[1][0]), text(&real));
}

#[test]
fn a_later_block_of_a_salted_chain_has_no_salt() {
    assert_eq!(ours(stored(Some(9), "tenant-A"))[1][0]["extra_keys"], serde_json::json!([null]));
}
