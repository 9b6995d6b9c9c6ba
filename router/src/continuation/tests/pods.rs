//! Pods that stream as vLLM 0.32 does, from a model whose every token is one byte.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::super::Resumption;
use crate::openai::{Api, StreamFormat};
use crate::tokenize::Tokenizer;

pub(super) struct Request {
    pub(super) format: StreamFormat,
    pub(super) body: String,
    pub(super) ids_per_event: usize,
}

/// One pod's part in an answer.
pub(super) struct Pod {
    api: Api,
    body: Value,
    prompt: Vec<u8>,
    /// What the model says after that prompt.
    rest: Vec<u8>,
    ids_per_event: usize,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) bytes: Vec<u8>,
}

const PROMPT: &[u8] = b"system: secret; user: hi";

/// The end of an answer: a special token without text.
const END: u32 = 256;

impl Request {
    pub(super) fn new(api: Api, chat: &str, wants_ids: bool) -> Self {
        let body = match api {
            Api::Chat => chat.to_owned(),
            _ => chat.replace(r#""messages":[{"role":"user","content":"hi"}]"#, r#""prompt":"hi""#),
        };
        let wants_usage = body.contains("include_usage");
        let format = StreamFormat { api, choices: 1, wants_usage, wants_ids, has_ids: true };
        Self { format, body, ids_per_event: 1 }
    }
}

impl Pod {
    pub(super) fn first(request: &Request, answer: &str) -> Self {
        let body = serde_json::from_str(&request.body).expect("JSON");
        let (api, ids_per_event) = (request.format.api, request.ids_per_event);
        Self { api, body, prompt: PROMPT.to_vec(), rest: answer.into(), ids_per_event }
    }

    pub(super) fn next(resumption: &Resumption, answer: &str) -> Self {
        let body: Value = serde_json::from_slice(&resumption.body).expect("JSON");
        let ids: Vec<u32> = serde_json::from_value(body["prompt"].clone()).expect("ids");
        assert_eq!(ids, resumption.tokens);
        let byte = |id: &u32| u8::try_from(*id).expect("no special token was kept");
        let prompt: Vec<u8> = ids.iter().map(byte).collect();
        assert_ne!(body["max_tokens"], 0, "vLLM answers 400");
        let made = &prompt[PROMPT.len()..];
        assert!(answer.as_bytes().starts_with(made), "the tokens so far are the answer's");
        assert!(str::from_utf8(made).is_ok(), "the prompt ends inside a character: it would leak");
        let rest = answer.as_bytes()[made.len()..].to_vec();
        Self { api: Api::Completions, body, prompt, rest, ids_per_event: 1 }
    }

    /// All that it sends.
    pub(super) fn stream(&self) -> Vec<u8> {
        let stops = match &self.body["stop"] {
            Value::String(stop) => vec![stop.clone()],
            stops => serde_json::from_value(stops.clone()).unwrap_or_default(),
        };
        let includes = self.body["include_stop_str_in_output"] == true;
        let max = self.body["max_tokens"].as_u64().and_then(|max| usize::try_from(max).ok());
        let mut ids: Vec<u32> = self.rest.iter().map(|byte| u32::from(*byte)).collect();
        ids.push(END);
        ids.truncate(max.unwrap_or(usize::MAX));
        let mut out = self.role();
        let (mut text, mut sent, mut made, mut pending) = (String::new(), 0, 0, Vec::new());
        let mut bytes = Vec::new();
        let last = ids.len() - 1;
        for (at, id) in ids.iter().enumerate() {
            made += 1;
            pending.push(*id);
            bytes.extend(u8::try_from(*id).ok());
            if let Ok(whole) = str::from_utf8(&bytes) {
                text.push_str(whole);
                bytes.clear();
            }
            let found = stops.iter().find_map(|stop| Some((text.find(stop.as_str())?, stop)));
            let finish = match found {
                Some((_, stop)) => Some(("stop", json!(stop))),
                None if *id == END => Some(("stop", Value::Null)),
                None if at == last => Some(("length", Value::Null)),
                None => None,
            };
            if let Some((start, stop)) = found {
                text.truncate(if includes { start + stop.len() } else { start });
            }
            if pending.len() < self.ids_per_event && finish.is_none() {
                continue;
            }
            let held = if includes || finish.is_some() { 0 } else { longest(&stops) };
            let end = text.char_indices().rev().nth(held.wrapping_sub(1));
            let end = if held == 0 { text.len() } else { end.map_or(0, |(at, _)| at) }.max(sent);
            let is_over = finish.is_some();
            self.event(
                &mut out,
                &text[sent..end],
                (&std::mem::take(&mut pending), made == 1),
                finish,
            );
            sent = end;
            if is_over {
                break;
            }
        }
        self.end(&mut out, made);
        out
    }

    fn role(&self) -> Vec<u8> {
        if self.api != Api::Chat {
            return Vec::new();
        }
        let prompt = json!(self.prompt);
        format!(
            "data: {},\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\
            \"logprobs\":null,\"finish_reason\":null}}],\"prompt_token_ids\":{prompt},\"prompt_text\":null}}\n\n",
            self.head()
        )
        .into_bytes()
    }

    fn event(
        &self,
        out: &mut Vec<u8>,
        text: &str,
        (ids, is_first): (&[u32], bool),
        finish: Option<(&str, Value)>,
    ) {
        let (head, text, ids) = (self.head(), json!(text), json!(ids));
        let is_last = finish.is_some();
        let (finish, stop) = finish.map_or((Value::Null, Value::Null), |(f, s)| (json!(f), s));
        let choice = if self.api == Api::Chat {
            let stop = if is_last { format!("\"stop_reason\":{stop},") } else { String::new() };
            format!(
                "\"delta\":{{\"content\":{text}}},\"logprobs\":null,\"finish_reason\":{finish},{stop}"
            )
        } else {
            let prompt = if is_first { json!(self.prompt) } else { Value::Null };
            format!(
                "\"text\":{text},\"logprobs\":null,\"finish_reason\":{finish},\"stop_reason\":{stop},\
                \"prompt_token_ids\":{prompt},"
            )
        };
        let event =
            format!("data: {head},\"choices\":[{{\"index\":0,{choice}\"token_ids\":{ids}}}]}}\n\n");
        out.extend_from_slice(event.as_bytes());
    }

    fn end(&self, out: &mut Vec<u8>, made: usize) {
        if self.body["stream_options"]["include_usage"] == true {
            let (prompt, total) = (self.prompt.len(), self.prompt.len() + made);
            let usage = format!(
                "data: {},\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\
                \"completion_tokens\":{made}}}}}\n\n",
                self.head()
            );
            out.extend_from_slice(usage.as_bytes());
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn head(&self) -> String {
        let object =
            if self.api == Api::Chat { "chat.completion.chunk" } else { "text_completion" };
        // Another pod has another id; the rest tells it from the first by its time.
        let created = if self.prompt == PROMPT { 1 } else { 2 };
        format!(
            "{{\"id\":\"c-{created}\",\"object\":\"{object}\",\"created\":{created},\"model\":\"m\""
        )
    }
}

impl Client {
    fn events(&self) -> Vec<Value> {
        let text = String::from_utf8(self.bytes.clone()).expect("UTF-8");
        let events = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let events: Vec<Value> = events
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).expect(data))
            .collect();
        assert!(events.iter().all(|event| event["created"] == 1), "one id from end to end: {text}");
        assert!(
            text.ends_with("data: [DONE]\n\n") && text.matches("[DONE]").count() == 1,
            "{text}"
        );
        events
    }

    fn choices(&self) -> Vec<Value> {
        self.events().iter().filter_map(|event| event["choices"].get(0).cloned()).collect()
    }

    pub(super) fn text(&self) -> String {
        let texts = self.choices().into_iter().map(|choice| {
            let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
            text.unwrap_or_default().to_owned()
        });
        texts.collect()
    }

    pub(super) fn finish(&self) -> String {
        let choices = self.choices();
        let finish = choices.iter().filter_map(|choice| choice["finish_reason"].as_str());
        finish.collect::<Vec<_>>().join(",")
    }

    pub(super) fn stop_reason(&self) -> Value {
        self.choices().last().expect("it ended")["stop_reason"].clone()
    }

    pub(super) fn roles(&self) -> usize {
        self.choices().iter().filter(|choice| choice["delta"]["role"].is_string()).count()
    }

    pub(super) fn usage(&self) -> Value {
        self.events().last().expect("it ended")["usage"].clone()
    }
}

fn longest(stops: &[String]) -> usize {
    stops.iter().map(|stop| stop.chars().count()).max().unwrap_or(1) - 1
}

/// One id for every byte, as GPT-2 spells them, and one special token.
pub(super) fn tokenizer() -> &'static Tokenizer {
    static LOADED: OnceLock<Tokenizer> = OnceLock::new();
    LOADED.get_or_init(load)
}

fn load() -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    let mut spare = 0x100;
    for byte in 0..=255u8 {
        let spelled = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                spare += 1;
                char::from_u32(spare - 1).expect("a character")
            }
        };
        vocab.insert(spelled.to_string(), byte.into());
    }
    let special = json!({"id": END, "content": "<end>", "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [special],
        "normalizer": null, "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}});
    Tokenizer::from_bytes(json.to_string().as_bytes(), None, b"{}").expect("it loads")
}
