use bytes::Bytes;

use super::*;
use crate::openai::{Api, prefill_leg, with};

const CLIENT: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":200}"#;

/// The answer of vLLM 0.32's prefill pod, shortened to fewer blocks.
const ANSWER: &[u8] = br#"{"id":"chatcmpl-1","choices":[{"index":0,"finish_reason":"length","message":{"role":"assistant","content":"x"}}],"usage":{"prompt_tokens":100,"completion_tokens":1},"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2,3,4]],"remote_engine_id":"bbebbb02-9e39-47d8-bc09-cf35e79439ae","remote_request_id":"cmpl-pd-769c2302-0-ad0d6d9e","remote_host":"127.0.0.1","remote_port":5600,"tp_size":1,"dcp_size":1,"pp_size":1,"remote_num_tokens":100,"remote_blocks_expiry_time":null,"transfer_mode":"pull","remote_prefill_cached_tokens":0}}"#;

fn handoff(name: ConnectorName) -> Handoff<'static> {
    Handoff {
        id: "U",
        room: (1 << 53) - 1,
        prefill: "10.0.0.42:8000".parse().unwrap(),
        port: name.default_port().unwrap_or(0),
        engine_id: Some("E0"),
    }
}

/// The two legs' bodies.
fn legs(name: ConnectorName) -> String {
    let (connector, handoff) = (name.connector().unwrap(), handoff(name));
    let body = Bytes::from_static(CLIENT);
    let more = connector.prefill(&handoff);
    let prefill = match connector.caps_prefill() {
        true => prefill_leg(Api::Chat, &body, &more).unwrap(),
        false => with(&body, &more).unwrap(),
    };
    let decode = with(&body, &connector.decode(&handoff, ANSWER).unwrap()).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    format!("{:?}\n{}\n{}", connector.order(), text(&prefill), text(&decode))
}

#[test]
fn nixl() {
    insta::assert_snapshot!(legs(ConnectorName::Nixl));
    insta::assert_snapshot!(legs(ConnectorName::NixlPush));
}

#[test]
fn mooncake() {
    insta::assert_snapshot!(legs(ConnectorName::Mooncake));
    let unknown = Handoff { engine_id: None, ..handoff(ConnectorName::Mooncake) };
    let mooncake = ConnectorName::Mooncake.connector().unwrap();
    assert_eq!(mooncake.decode(&unknown, b"").unwrap_err(), NoHandoff::NoEngine);
}

#[test]
fn sglang() {
    insta::assert_snapshot!(legs(ConnectorName::Sglang));
}

#[test]
fn offloading() {
    insta::assert_snapshot!(legs(ConnectorName::Offloading));
}

#[test]
fn shared_storage() {
    insta::assert_snapshot!(legs(ConnectorName::SharedStorage));
}

#[test]
fn what_is_handed_over_is_not_understood_but_passed_on() {
    let answer = br#"{"kv_transfer_params": { "remote_block_ids":[[1]], "remote_engine_id":"e","remote_request_id":"r", "remote_host":"h","remote_port":1, "new":{"x":18446744073709551617}} }"#;
    let nixl = ConnectorName::Nixl.connector().unwrap();
    let [(key, value)] = &nixl.decode(&handoff(ConnectorName::Nixl), answer).unwrap()[..] else {
        panic!("one member")
    };
    let want = r#"{ "remote_block_ids":[[1]], "remote_engine_id":"e","remote_request_id":"r", "remote_host":"h","remote_port":1, "new":{"x":18446744073709551617}}"#;
    assert_eq!((*key, value.as_str()), ("kv_transfer_params", want));
}

#[test]
fn what_would_kill_a_decode_pod_is_not_handed_over() {
    let nixl = ConnectorName::Nixl.connector().unwrap();
    let refused =
        |answer: &str| nixl.decode(&handoff(ConnectorName::Nixl), answer.as_bytes()).unwrap_err();
    assert_eq!(refused("<html>"), NoHandoff::NotJson);
    assert_eq!(refused(r#"{"kv_transfer_params":null}"#), NoHandoff::NoParams);
    assert_eq!(refused(r#"{"choices":[]}"#), NoHandoff::NoParams);
    assert_eq!(refused(r#"{"kv_transfer_params":[1]}"#), NoHandoff::NoParams);
    let whole = String::from_utf8(ANSWER.to_vec()).unwrap();
    for key in nixl::REQUIRED {
        assert_eq!(refused(&whole.replace(key, "x")), NoHandoff::Missing(key), "{key}");
        let value = whole.find(&format!("\"{key}\":")).unwrap() + key.len() + 3;
        let null = format!("{}null,\"x\":{}", &whole[..value], &whole[value..]);
        assert_eq!(refused(&null), NoHandoff::Missing(key), "{key} is null");
    }
}
