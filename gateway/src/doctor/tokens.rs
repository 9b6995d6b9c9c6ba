//! Whether a pod makes the same of a text as we do: ids of it, the text of ids, and ids of a chat.

use std::net::SocketAddr;

use jiff::Timestamp;
use reqwest::Client;
use router::tokenize::{ChatRequest, Tokenizer};
use serde_json::{Value, json};

/// What is the same. None: it could not be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// The ids of a text.
    pub(super) ids: Option<bool>,
    /// The text of ids.
    pub(super) text: Option<bool>,
    /// The ids of a chat: the template, besides.
    pub(super) chat: Option<bool>,
}

/// What tokenizers differ in: marks, digits, spaces, and characters of several bytes.
const TEXT: &str = "Hearth asks: ¿cuántos? 12345 🙂\n\tfn main() {}  // it's";

pub(super) async fn compare(
    client: &Client,
    addr: SocketAddr,
    model: &str,
    tokenizer: &Tokenizer,
) -> Agreement {
    let messages = json!([{"role": "user", "content": TEXT}]);
    let ask = async |path: &str, mut body: Value, member: &str| {
        body["model"] = model.into();
        let post = client.post(format!("http://{addr}{path}")).json(&body);
        let answer = post.send().await.ok()?.error_for_status().ok()?;
        Some(answer.json::<Value>().await.ok()?[member].take())
    };
    let same = |ours: Option<Value>, theirs: Option<Value>| Some(ours? == theirs?);
    let ids = tokenizer.encode(TEXT).ok();
    let chat = tokenizer
        .has_template()
        .then(|| tokenizer.chat_tokens(&ChatRequest::new(&messages, Timestamp::now())).ok());
    let plain = json!({"prompt": TEXT, "add_special_tokens": false});
    let theirs = (
        ask("/tokenize", plain, "tokens").await,
        ask("/detokenize", json!({"tokens": ids}), "prompt").await,
        ask("/tokenize", json!({"messages": messages}), "tokens").await,
    );
    Agreement {
        text: same(
            ids.as_ref().and_then(|ids| tokenizer.decode(ids).ok()).map(Value::from),
            theirs.1,
        ),
        ids: same(ids.map(Value::from), theirs.0),
        chat: same(chat.flatten().map(Value::from), theirs.2),
    }
}
