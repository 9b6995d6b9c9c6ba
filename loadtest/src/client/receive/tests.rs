use std::time::Duration;

use super::*;

const ROLE: &[u8] = br#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
const TOKEN: &[u8] = br#"{"choices":[{"delta":{"content":"hi"}}]}"#;
const USAGE: &[u8] =
    br#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}"#;

/// Reads documents that come at the given milliseconds after the request was sent.
fn read(documents: &[(u64, &[u8])]) -> (Answer, bool, Option<Failure>) {
    let mut answer = Answer::begin();
    let sent_at = answer.timing.sent_at;
    let mut reading =
        Reading { answer: &mut answer, last_token_at: None, done: false, failure: None };
    for (ms, data) in documents {
        reading.take(data, sent_at + Duration::from_millis(*ms));
    }
    let (done, failure) = (reading.done, reading.failure.take());
    (answer, done, failure)
}

#[test]
fn the_first_token_is_the_first_content_and_not_the_role_chunk() {
    let (answer, done, failure) =
        read(&[(5, ROLE), (80, TOKEN), (90, TOKEN), (115, TOKEN), (116, USAGE), (117, b"[DONE]")]);
    assert_eq!(answer.timing.ttft, Some(Duration::from_millis(80)));
    assert_eq!(answer.timing.gaps, [10, 25].map(Duration::from_millis));
    assert_eq!((answer.text.as_str(), done, failure), ("hihihi", true, None));
}

#[test]
fn time_per_output_token_leaves_out_the_first_token() {
    let (mut answer, ..) = read(&[(80, TOKEN), (116, USAGE)]);
    answer.timing.total = Duration::from_millis(120);
    // (120 - 80) ms for the two tokens after the first.
    let tpot_ms = answer.tpot_ms().expect("three tokens");
    assert!((tpot_ms - 20.0).abs() < 1e-6, "{tpot_ms}");
}

#[test]
fn one_token_has_no_time_per_output_token() {
    let usage = br#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    let (answer, ..) = read(&[(80, TOKEN), (81, usage)]);
    assert_eq!(answer.tpot_ms(), None);
}

#[test]
fn the_first_failure_in_a_stream_is_the_cause() {
    let error = br#"{"error":{"message":"engine died","type":"InternalServerError","code":500}}"#;
    let (_answer, done, failure) = read(&[(5, ROLE), (9, error), (10, b"{"), (11, b"[DONE]")]);
    assert!(done);
    assert_eq!(failure, Some(Failure::ErrorEvent("engine died".into())));
}

#[test]
fn kept_text_is_bounded_and_still_valid() {
    let mut text = "é".repeat(MAX_TEXT_BYTES);
    truncate(&mut text);
    assert!(text.len() <= MAX_TEXT_BYTES && text.ends_with('é'));
}
