//! What the answers say: counts, ids, text.

use http::Method;
use loadtest::simulator::assets;
use serde_json::{Value, json};

use crate::support::{client, fast, post, read, request, start};

#[tokio::test]
async fn thirty_chats_of_193_tokens_reuse_192_each_after_the_first() {
    let pod = start(fast()).await;
    let body = json!({
        "messages": [{"role": "user", "content": assets::PROMPT}], "max_tokens": 16,
        "temperature": 0,
    });
    for n in 0..30 {
        let usage = post(&pod, "/v1/chat/completions", &body).await.json()["usage"].clone();
        assert_eq!(usage["prompt_tokens"], 193);
        let cached = &usage["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(cached, if n == 0 { 0 } else { 192 });
    }
    let stats = pod.stats();
    assert_eq!((stats.prefix_cache_queries, stats.prefix_cache_hits), (30 * 193, 29 * 192));
}

#[tokio::test]
async fn thirty_raw_prompts_of_159_tokens_hit_4176_of_4770() {
    let pod = start(fast()).await;
    let body = json!({"prompt": assets::PROMPT, "max_tokens": 16, "temperature": 0});
    for _ in 0..30 {
        post(&pod, "/v1/completions", &body).await;
    }
    let stats = pod.stats();
    assert_eq!((stats.prefix_cache_queries, stats.prefix_cache_hits), (4770, 4176));
}

#[tokio::test]
async fn the_health_message_is_37_tokens() {
    let pod = start(fast()).await;
    let body = json!({"messages": [{"role": "user", "content": assets::HEALTH}]});
    assert_eq!(post(&pod, "/tokenize", &body).await.json()["count"], 37);
}

#[tokio::test]
async fn the_clients_request_id_is_part_of_the_id() {
    let pod = start(fast()).await;
    let body = json!({"prompt": "a", "max_tokens": 1}).to_string();
    let mut request = request(Method::POST, format!("{}/v1/completions", pod.url()), body);
    request.headers_mut().insert("x-request-id", "abc".parse().expect("a value"));
    let answer = read(client().request(request).await.expect("an answer")).await;
    assert_eq!(answer.json()["id"], "cmpl-abc");
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let pod = start(fast()).await;
    let mut body = json!({
        "messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 40, "temperature": 0,
        "ignore_eos": true,
    });
    let whole = post(&pod, "/v1/chat/completions", &body).await.json();
    body["stream"] = true.into();
    let events = post(&pod, "/v1/chat/completions", &body).await.events();
    let text: String = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], text.as_str());
    assert!(text.split(' ').count() > 20, "readable words: {text}");
}

#[tokio::test]
async fn an_answer_cut_anywhere_goes_on_unchanged_from_its_ids() {
    let pod = start(fast()).await;
    let body = json!({
        "prompt": "Once upon a time", "max_tokens": 20, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true,
    });
    let whole = post(&pod, "/v1/completions", &body).await.json();
    let choice = &whole["choices"][0];
    let ids = |field: &str| choice[field].as_array().expect("ids").clone();
    let other = start(fast()).await;
    for cut in [1, 7, 19] {
        let prompt: Vec<Value> =
            ids("prompt_token_ids").into_iter().chain(ids("token_ids")[..cut].to_vec()).collect();
        let body = json!({
            "prompt": prompt, "max_tokens": 20 - cut, "temperature": 0, "ignore_eos": true,
            "return_token_ids": true,
        });
        let rest = post(&other, "/v1/completions", &body).await.json();
        assert_eq!(rest["choices"][0]["token_ids"], json!(ids("token_ids")[cut..]), "cut {cut}");
    }
}

#[tokio::test]
async fn a_list_of_prompts_is_a_list_of_choices() {
    let pod = start(fast()).await;
    for prompts in [json!(["one", "two"]), json!([[5, 6, 7], [8, 9]])] {
        let body = json!({"prompt": prompts, "n": 2, "max_tokens": 1});
        let answer = post(&pod, "/v1/completions", &body).await.json();
        assert_eq!(answer["choices"].as_array().map(Vec::len), Some(4), "{answer}");
        assert_eq!(answer["usage"]["completion_tokens"], 4);
    }
}

#[tokio::test]
async fn a_stop_string_ends_the_text_before_it() {
    let pod = start(fast()).await;
    let mut body = json!({
        "prompt": "Once upon a time", "max_tokens": 40, "temperature": 0, "ignore_eos": true,
    });
    let whole = post(&pod, "/v1/completions", &body).await.json();
    let text = whole["choices"][0]["text"].as_str().expect("text").to_owned();
    // Across two words, so that it must be found over a seam between two tokens.
    let words: Vec<&str> = text.split(' ').collect();
    let stop = format!("{} {}", words[4], &words[5][..2]);
    body["stop"] = json!([stop]);
    for stream in [false, true] {
        body["stream"] = stream.into();
        let answer = post(&pod, "/v1/completions", &body).await;
        let (shown, last) = if stream {
            let events = answer.events();
            let texts = events.iter().filter_map(|event| event["choices"][0]["text"].as_str());
            (texts.collect::<String>(), events.last().expect("an end")["choices"][0].clone())
        } else {
            let choice = answer.json()["choices"][0].clone();
            (choice["text"].as_str().expect("text").to_owned(), choice)
        };
        assert_eq!(shown, text[..text.find(&stop).expect("it is there")]);
        assert_eq!((&last["finish_reason"], &last["stop_reason"]), (&json!("stop"), &json!(stop)));
    }
    assert_eq!(pod.in_flight(), 0);
    // The engine may be done before the stop is seen in the text; it is never an abort.
    let stats = pod.stats();
    assert_eq!((stats.finished_stop + stats.finished_length, stats.aborted), (3, 0));
}

#[tokio::test]
async fn embeddings_are_a_prefill_and_a_vector() {
    let pod = start(fast()).await;
    let body = json!({"input": ["The river ran low", "Hello"]});
    let answer = post(&pod, "/v1/embeddings", &body).await.json();
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer["usage"]["prompt_tokens"], 5 + 2);
    assert_eq!(pod.stats().generation_tokens, 0);
}

#[tokio::test]
async fn what_arrived_can_be_read_back_byte_for_byte() {
    let pod = start(fast()).await;
    let body = r#"{ "z":9007199254740993, "prompt":"a" ,"a":1.0e2,"z":1, "max_tokens":1 }"#;
    let request = request(Method::POST, format!("{}/v1/completions?q=1", pod.url()), body);
    read(client().request(request).await.expect("an answer")).await;
    let recorded = pod.requests();
    assert_eq!(recorded.len(), 1);
    assert_eq!(
        (recorded[0].path.as_str(), &recorded[0].body[..]),
        ("/v1/completions?q=1", body.as_bytes())
    );
}
