use super::*;

#[test]
fn a_role_chunk_holds_no_content() {
    let role = br#"{"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":""},
        "logprobs":null,"finish_reason":null}],"prompt_token_ids":null}"#;
    assert_eq!(Chunk::parse(role).expect("valid"), Chunk::default());
}

#[test]
fn deltas_messages_and_completion_texts_are_content() {
    for json in [
        r#"{"choices":[{"delta":{"content":"hi"},"finish_reason":null,"token_ids":null}]}"#,
        r#"{"choices":[{"message":{"role":"assistant","content":"hi","tool_calls":[]}}]}"#,
        r#"{"choices":[{"index":0,"text":"hi","logprobs":null}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"hi","content":null}}]}"#,
    ] {
        assert_eq!(Chunk::parse(json.as_bytes()).expect(json).text, "hi", "{json}");
    }
}

#[test]
fn cached_tokens_are_told_apart_from_an_engine_that_does_not_say() {
    let silent = br#"{"choices":[],"usage":{"prompt_tokens":12,"total_tokens":15,
        "completion_tokens":3,"prompt_tokens_details":null}}"#;
    let said = br#"{"choices":[],"usage":{"prompt_tokens":193,"completion_tokens":16,
        "prompt_tokens_details":{"cached_tokens":192,"created_cache_tokens":0}}}"#;
    let silent = Chunk::parse(silent).expect("valid").usage.expect("present");
    let said = Chunk::parse(said).expect("valid").usage.expect("present");
    assert_eq!((silent.prompt_tokens, silent.cached_tokens), (12, None));
    assert_eq!((said.completion_tokens, said.cached_tokens), (16, Some(192)));
}

#[test]
fn an_error_object_gives_its_message() {
    let json = br#"{"error":{"message":"no such model","type":"NotFoundError","code":404}}"#;
    assert_eq!(Chunk::parse(json).expect("valid").error.as_deref(), Some("no such model"));
}

#[test]
fn what_is_not_json_is_an_error() {
    assert!(Chunk::parse(b"<html>").is_err());
}
