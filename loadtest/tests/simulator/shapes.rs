//! Keys, their order, and types: field by field as the real one.

use http::Method;
use loadtest::simulator::Config;
use serde_json::{Value, json};

use crate::support::{
    Answer, assert_same_head, assert_same_shape, client, fast, fixture, fixture_text, get, post,
    read, request, start,
};

fn chat(extra: Value) -> Value {
    let mut body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Hi there"}], "max_tokens": 3,
        "temperature": 0, "ignore_eos": true,
    });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

async fn answer(path: &str, body: &Value) -> Answer {
    post(&start(fast()).await, path, body).await
}

async fn assert_like(path: &str, body: &Value, name: &str) -> Value {
    let (ours, real) = (answer(path, body).await, fixture(name));
    assert_same_head(&ours, &real, name);
    let ours = ours.json();
    assert_same_shape(&ours, &real.json(), name);
    ours
}

/// Every event of a stream against the fixture's: first, middle, last, usage.
async fn assert_stream_like(path: &str, body: &Value, name: &str) -> Vec<Value> {
    let (ours, real) = (answer(path, body).await, fixture(name));
    assert_same_head(&ours, &real, name);
    assert!(ours.body.ends_with("\n\ndata: [DONE]\n\n"), "{}", ours.body);
    let (ours, real) = (ours.events(), real.events());
    assert_eq!(ours.len(), real.len(), "events of {name}");
    for (n, (ours, real)) in ours.iter().zip(&real).enumerate() {
        // The real server ran without --enable-prompt-tokens-details, which adds this field.
        let mut ours = ours.clone();
        if let Some(usage) = ours.get_mut("usage").and_then(Value::as_object_mut) {
            usage.shift_remove("prompt_tokens_details");
        }
        assert_same_shape(&ours, real, &format!("{name}#{n}"));
    }
    ours
}

#[tokio::test]
async fn chat_completions_have_vllms_fields() {
    let ours = assert_like("/v1/chat/completions", &chat(json!({})), "no_model.txt").await;
    assert_eq!(ours["usage"]["completion_tokens"], 3);
    assert_eq!(ours["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn what_vllm_takes_and_passes_over_is_taken() {
    for (extra, name) in [
        (json!({"priority": 5}), "priority_err.txt"),
        (json!({"cache_salt": "tenant-A"}), "cache_salt.txt"),
        (json!({"nobody_knows": {"this": 1}}), "unknown_field.txt"),
        (
            json!({"messages": [{"role": "user", "content": "Hi. ".repeat(20)}]}),
            "kvreport_full.txt",
        ),
    ] {
        assert_like("/v1/chat/completions", &chat(extra), name).await;
    }
}

#[tokio::test]
async fn a_rank_that_is_not_there_is_refused_where_tokens_are_made() {
    let pod = start(fast()).await;
    let real = fixture("dprank_hdr.txt");
    let ask = async |path: &str, rank: &str| {
        let mut body = chat(json!({"input": "Hi"}));
        body["prompt"] = "Hi".into();
        let mut request = request(Method::POST, format!("{}{path}", pod.url()), body.to_string());
        request.headers_mut().insert("x-data-parallel-rank", rank.parse().expect("a value"));
        read(client().request(request).await.expect("an answer")).await
    };
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/responses"] {
        let ours = ask(path, "3").await;
        assert_same_head(&ours, &real, path);
        assert_eq!(ours.json(), real.json(), "{path}");
    }
    assert_eq!(ask("/v1/messages", "3").await.status, 400);
    for rank in ["0", "first"] {
        assert_eq!(ask("/v1/chat/completions", rank).await.status, 200, "{rank}");
    }
}

#[tokio::test]
async fn a_chat_is_rendered_to_the_ids_of_tokenize_where_that_is_allowed() {
    let refused = answer("/v1/chat/completions/render", &chat(json!({}))).await;
    let real = fixture("render_chat.txt");
    assert_same_head(&refused, &real, "render_chat.txt");
    assert_eq!(refused.json(), real.json());
    let pod = start(Config { scale_out: true, ..fast() }).await;
    let rendered = post(&pod, "/v1/chat/completions/render", &chat(json!({}))).await.json();
    let real: Value = serde_json::from_str(&fixture_text("render_chat_ok.json")).expect("JSON");
    assert_same_shape(&rendered, &real, "render_chat_ok.json");
    let counted = post(&pod, "/tokenize", &chat(json!({}))).await.json();
    assert_eq!(rendered["token_ids"], counted["tokens"]);
    assert_eq!(rendered["model"], "tiny");
}

#[tokio::test]
async fn log_probabilities_have_vllms_fields() {
    let body = chat(json!({"logprobs": true, "top_logprobs": 1, "max_tokens": 2}));
    let path = "/v1/chat/completions";
    let ours = assert_like(path, &body, "chat_logprobs.txt").await;
    let listed = ours["choices"][0]["logprobs"]["content"].as_array().expect("a list");
    let text: String = listed.iter().filter_map(|it| it["token"].as_str()).collect();
    assert_eq!(ours["choices"][0]["message"]["content"], text, "one for each token");
    let streamed = chat(json!({"logprobs": true, "max_tokens": 2, "stream": true}));
    for event in &answer(path, &streamed).await.events()[1..] {
        let choice = &event["choices"][0];
        assert_eq!(choice["logprobs"]["content"][0]["token"], choice["delta"]["content"]);
    }

    let body = json!({"prompt": "Hello", "max_tokens": 3, "logprobs": 2, "ignore_eos": true});
    let choice = &answer("/v1/completions", &body).await.json()["choices"][0];
    let keys: Vec<&String> = choice["logprobs"].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["text_offset", "token_logprobs", "tokens", "top_logprobs"]);
    let tokens = choice["logprobs"]["tokens"].as_array().expect("a list");
    let text: String = tokens.iter().filter_map(Value::as_str).collect();
    assert_eq!((&choice["text"], tokens.len()), (&text.into(), 3));
    assert_eq!(choice["logprobs"]["text_offset"][0], 0);
}

#[tokio::test]
async fn a_tool_that_is_forced_is_called_with_arguments_of_its_schema() {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": schema}}]);
    let named = json!({"type": "function", "function": {"name": "look"}});
    let path = "/v1/chat/completions";
    for (choice, reason) in [(json!("required"), "tool_calls"), (named, "stop")] {
        let body = |stream| {
            json!({
                "messages": [{"role": "user", "content": "Hi"}], "tools": tools,
                "tool_choice": choice, "stream": stream,
            })
        };
        let whole = answer(path, &body(false)).await.json();
        let said = &whole["choices"][0];
        assert_eq!(
            (&said["finish_reason"], &said["message"]["content"]),
            (&reason.into(), &"".into())
        );
        let call = &said["message"]["tool_calls"][0];
        assert_eq!(
            (&call["type"], &call["function"]["name"]),
            (&"function".into(), &"look".into())
        );
        assert_eq!(call["function"]["arguments"], r#"{"city":"word"}"#);

        let events = answer(path, &body(true)).await.events();
        let calls = events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]);
        let calls: Vec<&Value> = calls.filter(|call| !call.is_null()).collect();
        assert_eq!(calls[0]["function"]["name"], "look");
        let parts = calls.iter().filter_map(|call| call["function"]["arguments"].as_str());
        assert_eq!(parts.collect::<String>(), r#"{"city":"word"}"#);
        assert_eq!(events.last().expect("events")["choices"][0]["finish_reason"], reason);
    }
    let body = chat(json!({"tool_choice": "required"}));
    assert_eq!(answer(path, &body).await.status, 400, "there is no tool");
}

#[tokio::test]
async fn n_choices_are_listed_by_index() {
    let body = chat(json!({"n": 2, "max_tokens": 2}));
    let ours = assert_like("/v1/chat/completions", &body, "n2.txt").await;
    assert_eq!(ours["choices"][1]["index"], 1);
    assert_eq!(ours["usage"]["completion_tokens"], 4);
}

#[tokio::test]
async fn completions_have_vllms_fields() {
    let body = json!({
        "model": "tiny", "prompt": "Hello world", "max_tokens": 3, "temperature": 0,
        "return_token_ids": true, "ignore_eos": true,
    });
    assert_like("/v1/completions", &body, "compl.txt").await;
    let mut body = body;
    body["prompt"] = json!([5, 6]);
    let ours = assert_like("/v1/completions", &body, "compl_tokens_in.txt").await;
    assert_eq!(ours["choices"][0]["prompt_token_ids"], json!([5, 6]));
}

#[tokio::test]
async fn chat_chunks_have_vllms_fields() {
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let ours = assert_stream_like("/v1/chat/completions", &body, "chat_stream.txt").await;
    assert_eq!(ours[0]["choices"][0]["delta"]["role"], "assistant");
    let usage = &ours[4]["usage"];
    assert_eq!(
        (&usage["completion_tokens"], &usage["prompt_tokens_details"]),
        (&json!(3), &json!({"cached_tokens": 0}))
    );
}

#[tokio::test]
async fn chat_chunks_carry_usage_and_ids_when_asked() {
    let body = chat(json!({
        "stream": true, "return_token_ids": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true},
    }));
    let name = "chat_stream_contusage_tokids.txt";
    let ours = assert_stream_like("/v1/chat/completions", &body, name).await;
    assert_eq!(ours[0]["usage"]["completion_tokens"], 0);
    assert_eq!(ours[3]["usage"]["completion_tokens"], 3);
    let prompt = ours[0]["prompt_token_ids"].as_array().expect("the prompt's ids");
    assert_eq!(prompt.len(), 37);
}

#[tokio::test]
async fn completion_chunks_have_vllms_fields() {
    let body = json!({
        "model": "tiny", "prompt": "Hello world", "max_tokens": 2, "temperature": 0,
        "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
    });
    assert_stream_like("/v1/completions", &body, "compl_stream.txt").await;
}

#[tokio::test]
async fn messages_have_vllms_fields() {
    assert_like("/v1/messages", &chat(json!({})), "messages.txt").await;
    let body = chat(json!({"stream": true, "system": "Be brief."}));
    let kinds: Vec<Value> =
        answer("/v1/messages", &body).await.events().iter().map(|e| e["type"].clone()).collect();
    assert_eq!(kinds.first(), Some(&json!("message_start")));
    assert_eq!(kinds.last(), Some(&json!("message_stop")));
}

#[tokio::test]
async fn messages_count_tokens_as_chat_does() {
    let ours = answer("/v1/messages/count_tokens", &chat(json!({}))).await;
    assert_eq!(ours.json(), json!({"input_tokens": 37}));
}

#[tokio::test]
async fn responses_have_vllms_fields() {
    let body = json!({
        "model": "tiny", "input": "Hi there", "max_output_tokens": 4, "temperature": 0,
        "ignore_eos": true,
    });
    assert_like("/v1/responses", &body, "responses.txt").await;
    let mut body = body;
    body["stream"] = true.into();
    let events = answer("/v1/responses", &body).await.events();
    assert_eq!(events[0]["type"], "response.created");
    let last = events.last().expect("events");
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["status"], "incomplete");
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], deltas);
}

#[tokio::test]
async fn tokenize_has_vllms_fields() {
    let body = chat(json!({"return_token_strs": true}));
    assert_like("/tokenize", &body, "tokenize_chat.txt").await;
    let prompt = json!({"model": "tiny", "prompt": "Hi there"});
    let ours = assert_like("/tokenize", &prompt, "tokenize_prompt.txt").await;
    let tokens = json!({"model": "tiny", "tokens": ours["tokens"]});
    let ours = assert_like("/detokenize", &tokens, "detokenize.txt").await;
    assert_eq!(ours["prompt"], "<|begin_of_text|>Hi there");
}

#[tokio::test]
async fn models_list_the_base_and_its_adapters() {
    let mut config = fast();
    config.loras = vec!["lora-a".to_owned()];
    let pod = start(config).await;
    let ours = get(&pod, "/v1/models").await.json();
    let (base, lora) = (&ours["data"][0], &ours["data"][1]);
    assert_eq!((&base["id"], &base["max_model_len"]), (&json!("tiny"), &json!(8192)));
    assert_eq!((&lora["id"], &lora["parent"]), (&json!("lora-a"), &json!("tiny")));
    assert!(lora["max_model_len"].is_null() && base["parent"].is_null());
    let body = chat(json!({"model": "lora-a"}));
    assert_eq!(post(&pod, "/v1/chat/completions", &body).await.json()["model"], "lora-a");
}

/// Errors are equal to the last byte.
#[tokio::test]
async fn errors_are_vllms_words() {
    let pod = start(fast()).await;
    let long: Vec<u32> = vec![5; 9000];
    let cases = [
        ("err_model.txt", "/v1/chat/completions", chat(json!({"model": "nope"})).to_string()),
        ("err_json.txt", "/v1/chat/completions", r#"{"model":x}"#.to_owned()),
        ("err_type.txt", "/v1/chat/completions", chat(json!({"messages": "x"})).to_string()),
        ("err_field.txt", "/v1/chat/completions", chat(json!({"temperature": -3})).to_string()),
        ("err_ctxlen.txt", "/v1/completions", json!({"prompt": long}).to_string()),
        (
            "err_ctxlen_stream.txt",
            "/v1/chat/completions",
            chat(json!({"max_tokens": 100_000, "stream": true})).to_string(),
        ),
    ];
    for (name, path, body) in cases {
        let request = request(Method::POST, format!("{}{path}", pod.url()), body);
        let ours = read(client().request(request).await.expect("an answer")).await;
        let real = fixture(name);
        assert_same_head(&ours, &real, name);
        assert_eq!(ours.json(), real.json(), "{name}");
    }
}

#[tokio::test]
async fn the_wrong_media_type_and_method_are_vllms_words() {
    let pod = start(fast()).await;
    let mut plain = request(Method::POST, format!("{}/v1/completions", pod.url()), "{}");
    plain.headers_mut().insert("content-type", "text/plain".parse().expect("a value"));
    let ours = read(client().request(plain).await.expect("an answer")).await;
    let real = fixture("err_ctype.txt");
    assert_same_head(&ours, &real, "err_ctype.txt");
    assert_eq!(ours.json(), real.json());
    let ours = get(&pod, "/v1/chat/completions").await;
    let real = fixture("err_method.txt");
    assert_same_head(&ours, &real, "err_method.txt");
    assert_eq!(ours.json(), real.json());
    assert_eq!(get(&pod, "/nope").await.json(), json!({"detail": "Not Found"}));
}
