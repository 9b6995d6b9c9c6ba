//! A later pod's events in the first pod's shape.
//!
//! Parsed and written anew, unlike the first pod's: a cut is rare.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What all events of the first pod say: the client has seen it.
#[derive(Clone, Debug)]
pub(super) struct Head {
    id: String,
    object: String,
    created: String,
    model: String,
}

/// An event of `/v1/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub(super) choices: Vec<Choice<'a>>,
    #[serde(default)]
    pub(super) usage: Option<Map<String, Value>>,
    #[serde(borrow, default)]
    system_fingerprint: Option<&'a RawValue>,
}

/// Its one choice.
#[derive(Debug, Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow, default)]
    pub(super) text: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) token_ids: Option<Vec<u32>>,
}

/// What the client gets of it instead of what it says.
pub(super) struct Said<'a> {
    pub(super) text: &'a str,
    /// A stop string that ends the answer here.
    pub(super) stopped: Option<&'a str>,
    /// Ids, if the client wants them.
    pub(super) ids: Option<&'a [u32]>,
}

/// Tokens before a pod's part of the answer.
#[derive(Clone, Copy)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

const CHAT: &str = "\"chat.completion.chunk\"";

// === impl Head ===

impl Head {
    /// Reads it from an event.
    pub(super) fn read(event: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
            #[serde(borrow)]
            object: &'a RawValue,
            #[serde(borrow)]
            created: &'a RawValue,
            #[serde(borrow)]
            model: &'a RawValue,
        }
        let event: Event<'_> = serde_json::from_slice(super::splice::data(event)?).ok()?;
        let own = |value: &RawValue| value.get().to_owned();
        let (id, object) = (own(event.id), own(event.object));
        Some(Self { id, object, created: own(event.created), model: own(event.model) })
    }

    fn is_chat(&self) -> bool {
        self.object == CHAT
    }

    /// Writes an event with a piece of the answer.
    pub(super) fn chunk(&self, chunk: &Chunk<'_>, said: &Said<'_>, base: Usage, out: &mut Vec<u8>) {
        let Some(choice) = chunk.choices.first() else { return };
        let stop = choice.stop_reason.map(RawValue::get).unwrap_or("null").to_owned();
        let (finish, stop) = match (said.stopped, &choice.finish_reason) {
            (Some(by), _) => (Some("stop"), spelled(by)),
            (None, finish) => (finish.as_deref(), stop),
        };
        self.begin(out);
        self.choice(said, finish, &stop, out);
        if let Some(usage) = &chunk.usage {
            push(out, ",\"usage\":");
            push(out, &summed(usage, base));
        }
        self.finish(chunk.system_fingerprint, out);
    }

    /// Writes the event with the usage.
    pub(super) fn usage(&self, chunk: &Chunk<'_>, base: Usage, out: &mut Vec<u8>) {
        self.begin(out);
        if let Some(usage) = &chunk.usage {
            push(out, "],\"usage\":");
            push(out, &summed(usage, base));
        }
        self.finish(chunk.system_fingerprint, out);
    }

    /// Writes the usage from our own count.
    pub(super) fn own_usage(&self, prompt: usize, completion: usize, out: &mut Vec<u8>) {
        let total = prompt + completion;
        self.begin(out);
        push(out, &format!("],\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},"));
        push(out, &format!("\"completion_tokens\":{completion}}}"));
        self.finish(None, out);
    }

    /// Writes the event that says that the answer has all the tokens that were asked for.
    pub(super) fn last(&self, wants_ids: bool, text: &str, out: &mut Vec<u8>) {
        self.begin(out);
        let ids = wants_ids.then_some(&[][..]);
        self.choice(&Said { text, stopped: None, ids }, Some("length"), "null", out);
        self.finish(None, out);
    }

    fn begin(&self, out: &mut Vec<u8>) {
        let Self { id, object, created, model } = self;
        push(out, &format!("data: {{\"id\":{id},\"object\":{object},\"created\":{created},"));
        push(out, &format!("\"model\":{model},\"choices\":["));
    }

    fn choice(&self, said: &Said<'_>, finish: Option<&str>, stop: &str, out: &mut Vec<u8>) {
        let text = spelled(said.text);
        let reason = finish.map_or_else(|| "null".to_owned(), spelled);
        let ids = said.ids.map_or_else(|| "null".to_owned(), |ids| Value::from(ids).to_string());
        push(out, "{\"index\":0,");
        if self.is_chat() {
            push(out, &format!("\"delta\":{{\"content\":{text}}},\"logprobs\":null,"));
            push(out, &format!("\"finish_reason\":{reason},"));
            if finish.is_some() {
                push(out, &format!("\"stop_reason\":{stop},"));
            }
        } else {
            push(out, &format!("\"text\":{text},\"logprobs\":null,\"finish_reason\":{reason},"));
            push(out, &format!("\"stop_reason\":{stop},\"prompt_token_ids\":null,"));
        }
        push(out, &format!("\"token_ids\":{ids}}}]"));
    }

    fn finish(&self, fingerprint: Option<&RawValue>, out: &mut Vec<u8>) {
        if let Some(fingerprint) = fingerprint {
            push(out, &format!(",\"system_fingerprint\":{}", fingerprint.get()));
        }
        push(out, "}\n\n");
    }
}

/// The pod's usage with what came before it. How much of the prompt the first pod had cached, it had
/// no time to say; what this one says counts the answer's tokens too.
fn summed(usage: &Map<String, Value>, base: Usage) -> String {
    let mut usage = usage.clone();
    let made = usage.get("completion_tokens").and_then(Value::as_u64).unwrap_or(0);
    let completion = base.completion as u64 + made;
    usage.remove("prompt_tokens_details");
    for (name, tokens) in [
        ("prompt_tokens", base.prompt as u64),
        ("total_tokens", base.prompt as u64 + completion),
        ("completion_tokens", completion),
    ] {
        usage.insert(name.to_owned(), tokens.into());
    }
    Value::Object(usage).to_string()
}

/// Whether an event is an error object, and not a text that speaks of one.
pub(super) fn error_of(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    memmem::find(data, b"\"error\":").is_some()
        && serde_json::from_slice::<Event<'_>>(data)
            .is_ok_and(|event| event.error.is_some_and(|error| error.get() != "null"))
}

fn spelled(text: &str) -> String {
    Value::from(text).to_string()
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
