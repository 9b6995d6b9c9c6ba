//! A model whose every token is a byte, pods that serve it as vLLM does, and cuts everywhere.

mod pods;

use proptest::prelude::*;
use serde_json::{Value, json};

use self::pods::{Client, Pod, Request, tokenizer};
use super::{Cannot, FEATURES, Model, Next, ResumeParams, Stream, Writing, is_aborted};
use crate::openai::{Api, StreamFormat};

const EMOJI: &str = "A family 👨‍👩‍👧 at the Zürich zoo: 🦁🦓, 你好!";

fn chat(more: &str) -> String {
    format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"stream":true,"temperature":0{more}}}"#
    )
}

/// What the client gets when the pods are cut after so many bytes each; the last one is not.
fn run(request: &Request, answer: &str, cuts: &[usize], knows: bool) -> Result<Client, Cannot> {
    let model = Model { tokenizer: knows.then(tokenizer), max_len: Some(4096) };
    let mut stream = Stream::new(request.format);
    let mut client = Client::default();
    let mut pod = Pod::first(request, answer);
    let mut cuts = cuts.iter();
    loop {
        let said = pod.stream();
        let cut = cuts.next().map_or(said.len(), |cut| *cut % said.len());
        // Pieces of another size than the events.
        for piece in said[..cut].chunks(97) {
            stream.feed(piece, &mut client.bytes);
        }
        if stream.state() == Writing::Done {
            return Ok(client);
        }
        if stream.state() == Writing::Nothing {
            // The answer can begin anew, and nothing has gone out.
            client.bytes.clear();
            stream = Stream::new(request.format);
            pod = Pod::first(request, answer);
            continue;
        }
        match stream.resume(request.body.as_bytes(), model) {
            Next::Over(rest) => {
                client.bytes.extend_from_slice(&rest);
                return Ok(client);
            }
            Next::Pod(next) => pod = Pod::next(&next, answer),
            Next::Cannot(why) => return Err(why),
        }
    }
}

fn uncut(request: &Request, answer: &str) -> Client {
    run(request, answer, &[], true).expect("nothing was cut")
}

#[test]
fn a_cut_anywhere_leaves_the_clients_bytes_as_they_are() {
    let usage = r#","stream_options":{"include_usage":true},"max_tokens":40"#;
    for api in [Api::Chat, Api::Completions] {
        for wants_ids in [false, true] {
            let request = Request::new(api, &chat(usage), wants_ids);
            let whole = uncut(&request, EMOJI);
            let length = Pod::first(&request, EMOJI).stream().len();
            for knows in [false, true] {
                // A prime: other places in each event.
                for cut in (1..length).step_by(53) {
                    let client = run(&request, EMOJI, &[cut], knows).expect("it goes on");
                    assert_eq!(client.text(), whole.text(), "{api:?}, cut at {cut}");
                    assert_eq!(client.bytes, whole.bytes, "{api:?}, cut at {cut}");
                }
            }
        }
    }
}

#[test]
fn what_the_pod_was_asked_for_by_us_the_client_does_not_see() {
    let request = Request::new(Api::Chat, &chat(r#","max_tokens":3"#), false);
    let client = uncut(&request, EMOJI);
    let text = String::from_utf8_lossy(&client.bytes);
    assert!(text.contains(r#""prompt_token_ids":null"#), "{text}");
    assert!(text.contains(r#""token_ids":null"#) && !text.contains("token_ids\":["), "{text}");
    let asked = uncut(&Request::new(Api::Chat, &chat(r#","max_tokens":3"#), true), EMOJI);
    assert!(String::from_utf8_lossy(&asked.bytes).contains(r#""token_ids":[65]"#));
}

#[test]
fn lists_of_ids_are_hidden_in_whatever_order_they_come() {
    let request = Request::new(Api::Chat, &chat(""), false);
    let mut stream = Stream::new(request.format);
    let event = r#"data: {"id":"x","object":"o","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"A"},"token_ids":[65]}],"prompt_token_ids":[1,2]}"#;
    let mut out = Vec::new();
    stream.feed(format!("{event}\n\n").as_bytes(), &mut out);
    let hidden = event.replace("[65]", "null").replace("[1,2]", "null");
    assert_eq!(String::from_utf8_lossy(&out), format!("{hidden}\n\n"));
}

#[test]
fn what_a_later_pod_makes_is_remembered_up_to_the_same_bound() {
    let usage = r#","stream_options":{"include_usage":true},"max_tokens":999"#;
    let request = Request::new(Api::Completions, &chat(usage), false);
    let mut stream = Stream::new(request.format);
    let said = Pod::first(&request, "abcd").stream();
    let after = memchr::memmem::find(&said, b"\"b\"").expect("it is there") + 120;
    stream.feed(&said[..after], &mut Vec::new());
    let body = request.body.as_bytes();
    assert!(matches!(stream.resume(body, Model::default()), Next::Pod(_)));
    let (kept, text) = (stream.seam.as_ref().expect("it went on").kept, "x".repeat(1 << 20));
    let mut last = Vec::new();
    for _ in 0..9 {
        last.clear();
        let event = format!(r#"data: {{"choices":[{{"text":"{text}","token_ids":[65]}}]}}"#);
        stream.feed(format!("{event}\n\n").as_bytes(), &mut last);
        assert!(stream.record.text.len() < 6 << 20, "{}", stream.record.text.len());
    }
    assert!(last.len() > text.len(), "it goes on to the client");
    last.clear();
    let end = r#"data: {"choices":[{"text":"y","token_ids":[66],"finish_reason":"stop"}]}"#;
    stream.feed(format!("{end}\n\n").as_bytes(), &mut last);
    assert!(stream.lost().is_some(), "nobody could go on from here");
    let Next::Over(rest) = stream.resume(body, Model::default()) else { panic!("it is whole") };
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains(&format!(r#""completion_tokens":{}"#, kept + 10)), "{rest}");
}

#[test]
fn a_stop_string_is_found_across_the_cut() {
    for (include, text) in [(false, "one two "), (true, "one two STOP!")] {
        let more = format!(r#","stop":["STOP!"],"include_stop_str_in_output":{include}"#);
        let request = Request::new(Api::Chat, &chat(&more), false);
        let answer = "one two STOP! three";
        assert_eq!(uncut(&request, answer).text(), text);
        for cut in (1..Pod::first(&request, answer).stream().len()).step_by(53) {
            let client = run(&request, answer, &[cut], true).expect("it goes on");
            assert_eq!((client.text().as_str(), client.finish()), (text, "stop".into()), "{cut}");
            assert_eq!(client.stop_reason(), json!("STOP!"), "cut at {cut}");
        }
    }
}

#[test]
fn without_a_tokenizer_only_what_is_certain_goes_on() {
    let request = Request::new(Api::Chat, &chat(r#","stop":"x""#), false);
    let cut = Pod::first(&request, EMOJI).stream().len() / 2;
    assert_eq!(run(&request, EMOJI, &[cut], false).err(), Some(Cannot::NoTokenizer));
    let mut grouped = Request::new(Api::Chat, &chat(""), false);
    grouped.ids_per_event = 3;
    assert_eq!(run(&grouped, EMOJI, &[cut], false).err(), Some(Cannot::NoTokenizer));
    assert_eq!(run(&grouped, EMOJI, &[cut], true).expect("it goes on").text(), EMOJI);
}

#[test]
fn an_answer_that_is_finished_is_ended_by_us() {
    let usage = r#","stream_options":{"include_usage":true}"#;
    for more in ["", usage] {
        let request = Request::new(Api::Chat, &chat(more), false);
        let whole = uncut(&request, "abc");
        let said = Pod::first(&request, "abc").stream();
        let finish = memchr::memmem::find(&said, b"\"finish_reason\":\"stop\"").expect("it ends");
        let after = finish + memchr::memmem::find(&said[finish..], b"\n\n").expect("an event") + 2;
        for cut in after..said.len() {
            let client = run(&request, "abc", &[cut], false).expect("it is whole");
            assert_eq!(client.usage(), whole.usage(), "cut at {cut}");
            assert!(client.bytes.ends_with(b"data: [DONE]\n\n"));
        }
    }
}

#[test]
fn all_tokens_without_the_word_for_it_are_a_whole_answer() {
    let request = Request::new(Api::Completions, &chat(r#","max_tokens":3"#), false);
    let mut stream = Stream::new(request.format);
    let mut client = Client::default();
    let said =
        Pod::first(&Request::new(Api::Completions, &chat(r#","max_tokens":4"#), false), "abcd");
    let said = said.stream();
    let third = memchr::memmem::find(&said, b"\"c\"").expect("it is there");
    stream.feed(&said[..third + 120], &mut client.bytes);
    let body = request.body.as_bytes();
    let Next::Over(rest) = stream.resume(body, Model::default()) else {
        panic!("nothing is left to do")
    };
    client.bytes.extend_from_slice(&rest);
    assert_eq!((client.text().as_str(), client.finish()), ("abc", "length".into()));
    assert_eq!(stream.state(), Writing::Done);
}

#[test]
fn a_pod_that_says_it_failed_or_gave_up_is_cut_and_that_goes_to_nobody() {
    let error = r#"{"error":{"message":"EngineCore","code":500}}"#;
    let aborted = r#"{"id":"c","choices":[{"index":0,"delta":{"content":""},"finish_reason":"abort","token_ids":[]}]}"#;
    for last in [error, aborted] {
        says_last(last);
    }
}

fn says_last(last: &str) {
    let request = Request::new(Api::Chat, &chat(""), false);
    let said = Pod::first(&request, EMOJI).stream();
    let half = memchr::memmem::find(&said, b"\"t\"").expect("it is there");
    let half = half + memchr::memmem::find(&said[half..], b"\n\n").expect("an event") + 2;
    let mut stream = Stream::new(request.format);
    let mut client = Client::default();
    stream.feed(&said[..half], &mut client.bytes);
    let before = client.bytes.len();
    stream.feed(format!("data: {last}\n\ndata: [DONE]\n\n").as_bytes(), &mut client.bytes);
    assert_eq!((stream.state(), client.bytes.len()), (Writing::Failed, before), "{last}");
    assert!(matches!(stream.resume(request.body.as_bytes(), Model::default()), Next::Pod(_)));
}

#[test]
fn a_message_or_a_response_that_its_pod_gave_up_has_failed() {
    let format = |api| StreamFormat {
        api,
        choices: 1,
        wants_usage: false,
        wants_ids: false,
        has_ids: false,
    };
    let text =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"A"}}"#;
    let end = |reason: &str| {
        format!(
            r#"{{"type":"message_delta","delta":{{"stop_reason":{reason},"stop_sequence":null}}}}"#
        )
    };
    let response = |status: &str| {
        format!(r#"{{"response":{{"status":"{status}"}},"type":"response.completed"}}"#)
    };
    for (api, last, state) in [
        (Api::Messages, end("\"end_turn\""), Writing::Text),
        (Api::Messages, end("null"), Writing::Failed),
        (Api::Messages, r#"{"type":"message_stop"}"#.to_owned(), Writing::Done),
        (Api::Messages, r#"{"type":"error","error":{"type":"e"}}"#.to_owned(), Writing::Failed),
        (Api::Responses, response("completed"), Writing::Done),
        (Api::Responses, response("cancelled"), Writing::Failed),
        (Api::Responses, r#"{"type":"response.failed","response":{}}"#.into(), Writing::Failed),
        (Api::Generate, r#"{"choices":[{"finish_reason":"abort"}]}"#.into(), Writing::Failed),
        (Api::Generate, "[DONE]".to_owned(), Writing::Done),
    ] {
        let mut stream = Stream::new(format(api));
        let mut out = Vec::new();
        let start = r#"{"type":"message_start","message":{"stop_reason":null}}"#;
        stream.feed(format!("data: {start}\n\ndata: {text}\n\n").as_bytes(), &mut out);
        assert_eq!(stream.state(), Writing::Text, "{api:?}");
        stream.feed(format!("data: {last}\n\n").as_bytes(), &mut out);
        assert_eq!(stream.state(), state, "{api:?}: {last}");
        assert_eq!(stream.is_unfinished(), state != Writing::Done, "{api:?}: {last}");
    }
}

#[test]
fn a_plain_answer_that_its_pod_gave_up_is_told_from_a_whole_one() {
    for (api, answer, aborted) in [
        (Api::Chat, r#"{"choices":[{"finish_reason":"abort"}]}"#, true),
        (Api::Chat, r#"{"choices":[{"finish_reason":"length"}]}"#, false),
        (Api::Messages, r#"{"type":"message","content":[],"model":"m"}"#, true),
        (Api::Messages, r#"{"type":"message","content":[],"stop_reason":"end_turn"}"#, false),
        (Api::CountTokens, r#"{"input_tokens":3}"#, false),
        (Api::Responses, r#"{"status":"cancelled","output":[]}"#, true),
        (Api::Responses, r#"{"status":"incomplete","output":[]}"#, false),
    ] {
        assert_eq!(is_aborted(api, answer.as_bytes()), aborted, "{api:?}: {answer}");
    }
}

#[test]
fn nothing_but_a_token_is_a_beginning() {
    let request = Request::new(Api::Chat, &chat(""), false);
    let mut stream = Stream::new(request.format);
    let mut out = Vec::new();
    let role = r#"{"id":"c","object":"o","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":[1,2]}"#;
    for event in
        [": ping\n\n".to_owned(), format!("data: {role}\n\n"), "data: {\"choices\":[]}\n\n".into()]
    {
        stream.feed(event.as_bytes(), &mut out);
        assert_eq!(stream.state(), Writing::Nothing, "{event}");
    }
    let call =
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]},"finish_reason":null}]}"#;
    stream.feed(format!("data: {call}\n\n").as_bytes(), &mut out);
    assert_eq!(stream.state(), Writing::Text);
}

#[test]
fn what_cannot_go_on_says_so() {
    for (more, why) in [
        (r#","frequency_penalty":0.5"#, Some(Cannot::Feature)),
        (r#","frequency_penalty":0,"presence_penalty":0.0"#, None),
        (r#","seed":7"#, None),
        (r#","temperature":0.7,"seed":7"#, Some(Cannot::Feature)),
        (r#","temperature":0.7"#, None),
        (r#","response_format":{"type":"json_object"}"#, Some(Cannot::Feature)),
        (r#","response_format":{"type":"text"}"#, None),
        (r#","tools":[{"type":"function"}]"#, Some(Cannot::Feature)),
        (r#","tools":[{"type":"function"}],"tool_choice":"none""#, None),
        (r#","n":2"#, Some(Cannot::Feature)),
        (r#","logprobs":true"#, Some(Cannot::Feature)),
        (r#","some_new_field":1"#, Some(Cannot::Feature)),
        (
            r#","messages":[{"role":"user","content":[{"type":"image_url"}]}]"#,
            Some(Cannot::NotText),
        ),
        (r#","messages":[{"role":"user","content":[{"type":"text","text":"image_url"}]}]"#, None),
    ] {
        let params = ResumeParams::read(Api::Chat, chat(more).as_bytes());
        assert_eq!(params.err(), why, "{more}");
    }
    let batch = r#"{"prompt":["a","b"],"stream":true}"#;
    assert_eq!(ResumeParams::read(Api::Completions, batch.as_bytes()).err(), Some(Cannot::NotText));
}

#[test]
fn reasoning_that_a_pod_parsed_does_not_come_back_raw() {
    let request = Request::new(Api::Chat, &chat(""), false);
    let mut stream = Stream::new(request.format);
    let mut out = Vec::new();
    let event = |delta: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":\
            [{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":[9]}}]}}\n\n"
        )
    };
    stream.feed(event("{}").as_bytes(), &mut out);
    assert!(out.is_empty(), "an event that the pod sent for our sake alone");
    stream.feed(event(r#"{"reasoning":"hm"}"#).as_bytes(), &mut out);
    assert!(String::from_utf8_lossy(&out).contains(r#""token_ids":null"#));
    let next = stream.resume(request.body.as_bytes(), Model::default());
    assert_eq!(next, Next::Cannot(Cannot::Parsed));
}

#[test]
fn the_next_body_asks_for_what_is_left() {
    let body = r#"{"model":"m","prompt":"hi","max_tokens":10,"min_tokens":5,"top_k":3,"user":"u","stream":true}"#;
    let params = ResumeParams::read(Api::Completions, body.as_bytes()).expect("it can go on");
    let next: Value = serde_json::from_slice(&params.body(&[1, 2, 3], 2, Some(100))).expect("JSON");
    let want = json!({"prompt": [1, 2, 3], "model": "m", "max_tokens": 8, "min_tokens": 3,
        "stream": true, "return_token_ids": true, "top_k": 3});
    assert_eq!(next, want);
    let chat = ResumeParams::read(Api::Chat, chat("").as_bytes()).expect("it can go on");
    let next: Value = serde_json::from_slice(&chat.body(&[1, 2, 3], 2, Some(100))).expect("JSON");
    assert_eq!(next["max_tokens"], 97, "the rest of the context, as a chat without a bound has");
}

#[test]
fn the_table_is_in_order_so_that_it_can_be_searched() {
    assert!(FEATURES.is_sorted_by_key(|(name, _)| name));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn cuts_anywhere_and_often_change_no_text(
        answer in "[a-c🦁é你 ]{1,24}",
        cuts in proptest::collection::vec(0usize..6000, 1..4),
        ids_per_event in 1usize..4,
        stop in "[a-c]{1,3}",
        has_stop: bool,
    ) {
        let more = if has_stop { format!(r#","stop":["{stop}"]"#) } else { String::new() };
        let more = format!(r#"{more},"stream_options":{{"include_usage":true}}"#);
        let mut request = Request::new(Api::Chat, &chat(&more), false);
        request.ids_per_event = ids_per_event;
        let whole = uncut(&request, &answer);
        let client = run(&request, &answer, &cuts, true).expect("it goes on");
        prop_assert_eq!(client.text(), whole.text());
        prop_assert_eq!(client.finish(), whole.finish());
        prop_assert_eq!(client.roles(), 1);
        if !has_stop {
            prop_assert_eq!(client.usage(), whole.usage());
        }
    }
}
