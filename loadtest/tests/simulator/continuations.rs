//! An answer that was cut goes on elsewhere from the ids so far, as on real pods (greedy, float32).

use loadtest::simulator::assets;
use router::tokenize::Tokenizer;
use serde_json::{Value, json};

use crate::support::{fast, post, start};

const TOKENS: usize = 120;

fn body(prompt: &Value, max_tokens: usize) -> Value {
    json!({
        "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": true,
        "return_token_ids": true,
    })
}

fn tokenizer() -> Tokenizer {
    assets::tokenizer().expect("the embedded tokenizer loads")
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().expect("ids").iter();
    ids.map(|id| u32::try_from(id.as_u64().expect("a number")).expect("an id")).collect()
}

/// Prompt ids, generated ids and text.
async fn whole() -> (Vec<u32>, Vec<u32>, String) {
    let pod = start(fast()).await;
    let answer = post(&pod, "/v1/completions", &body(&"Once upon a time".into(), TOKENS)).await;
    let choice = &answer.json()["choices"][0];
    let text = choice["text"].as_str().expect("text").to_owned();
    (ids(&choice["prompt_token_ids"]), ids(&choice["token_ids"]), text)
}

#[tokio::test]
async fn at_every_cut_the_rest_is_the_same_byte_for_byte() {
    let (prompt, generated, text) = whole().await;
    assert!(text.chars().any(|character| character.len_utf8() == 4), "pictures occur: {text}");
    let (pod, tokenizer) = (start(fast()).await, tokenizer());
    let mut inside = 0;
    for cut in 1..TOKENS {
        let shown = tokenizer.decode_visible(&generated[..cut]).expect("ids of the vocabulary");
        if shown.ends_with('\u{fffd}') {
            // Nobody may go on from here: see below.
            inside += 1;
            continue;
        }
        let so_far = [&prompt[..], &generated[..cut]].concat();
        let rest = post(&pod, "/v1/completions", &body(&json!(so_far), TOKENS - cut)).await.json();
        let rest = &rest["choices"][0];
        assert_eq!(ids(&rest["token_ids"]), generated[cut..], "cut {cut}");
        let joined = shown + rest["text"].as_str().expect("text");
        assert_eq!(joined, text, "cut {cut}");
    }
    assert!(inside > 3, "characters of several tokens occur: {inside}");
}

#[tokio::test]
async fn a_prompt_that_ends_inside_a_character_comes_out_whole() {
    let (prompt, generated, text) = whole().await;
    let tokenizer = tokenizer();
    let decode = |ids: &[u32]| tokenizer.decode_visible(ids).expect("ids of the vocabulary");
    let cut = (1..TOKENS).find(|cut| decode(&generated[..*cut]).ends_with('\u{fffd}'));
    let cut = cut.expect("characters of several tokens occur");
    let so_far = [&prompt[..], &generated[..cut]].concat();
    let pod = start(fast()).await;
    let rest = post(&pod, "/v1/completions", &body(&json!(so_far), TOKENS - cut)).await.json();
    let leaked = rest["choices"][0]["text"].as_str().expect("text");
    assert_eq!(leaked, decode(&prompt) + &text, "vLLM issue 48853: the prompt, too");
}

#[tokio::test]
async fn a_stream_names_its_prompt_ids_once_and_every_token_even_without_text() {
    let pod = start(fast()).await;
    for (path, field, value) in [
        ("/v1/completions", "prompt", json!("Once upon a time")),
        ("/v1/chat/completions", "messages", json!([{"role": "user", "content": "Tell me."}])),
    ] {
        let mut body = body(&Value::Null, TOKENS);
        body[field] = value;
        body["stream"] = true.into();
        let events = post(&pod, path, &body).await.events();
        let prompts = |event: &&Value| {
            let of_choice = event["choices"][0]["prompt_token_ids"].is_array();
            of_choice || event["prompt_token_ids"].is_array()
        };
        assert_eq!(events.iter().filter(prompts).count(), 1, "{path}");
        assert!(prompts(&&events[0]), "{path}");
        let tokens = events.iter().filter(|event| event["choices"][0]["token_ids"].is_array());
        let tokens: Vec<_> = tokens.collect();
        assert_eq!(tokens.len(), TOKENS, "{path}: a chunk a step");
        let text = |event: &Value| {
            let choice = &event["choices"][0];
            choice["text"].as_str().or(choice["delta"]["content"].as_str()) == Some("")
        };
        assert!(tokens.iter().any(|event| text(event)), "{path}: empty ones among them");
    }
}

#[tokio::test]
async fn a_seed_goes_on_and_min_tokens_are_bounded() {
    let (pod, other) = (start(fast()).await, start(fast()).await);
    let mut asked = body(&"Once upon a time".into(), 30);
    asked["temperature"] = 0.8.into();
    asked["seed"] = 42.into();
    let whole = post(&pod, "/v1/completions", &asked).await.json()["choices"][0].clone();
    let generated = ids(&whole["token_ids"]);
    asked["prompt"] = json!([ids(&whole["prompt_token_ids"]), generated[..10].to_vec()].concat());
    asked["max_tokens"] = 20.into();
    let rest = post(&other, "/v1/completions", &asked).await.json();
    assert_eq!(ids(&rest["choices"][0]["token_ids"]), generated[10..], "as runner V2's seeds");
    asked["min_tokens"] = 21.into();
    let refused = post(&other, "/v1/completions", &asked).await;
    assert_eq!(refused.status, 400);
    asked["max_tokens"] = 0.into();
    asked["min_tokens"] = 0.into();
    assert_eq!(post(&other, "/v1/completions", &asked).await.status, 400);
}
