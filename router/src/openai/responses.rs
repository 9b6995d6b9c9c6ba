//! `/v1/responses` to chat messages, as vLLM 0.32 converts them
//! (`entrypoints/openai/responses/utils.py`).
//!
//! Whatever is not certain (a previous response that only its pod has, images, items of tools that
//! the engine runs itself) is told as such: none.

use serde_json::{Map, Value, json};

/// The chat messages of a request, given its `instructions` and `input`.
pub(super) fn messages(instructions: Option<&Value>, input: &Value) -> Option<Value> {
    let mut chat = Vec::new();
    match instructions {
        None | Some(Value::Null) => {}
        Some(text) => {
            let text = text.as_str()?;
            if !text.is_empty() {
                chat.push(json!({"role": "system", "content": text}));
            }
        }
    }
    match input {
        Value::String(text) => chat.push(json!({"role": "user", "content": text})),
        items => {
            let begin = chat.len();
            for item in items.as_array()? {
                convert(item, begin, &mut chat)?;
            }
        }
    }
    Some(chat.into())
}

/// The tools in the shape of the chat API's; only functions are certain. What does not belong there
/// is dropped with the rest when the template gets them.
pub(super) fn tools(tools: &Value) -> Option<Value> {
    let tools = tools.as_array()?.iter().map(|tool| {
        let is_function = tool.get("type").is_some_and(|kind| kind == "function");
        is_function.then(|| json!({"type": "function", "function": tool}))
    });
    tools.collect::<Option<Vec<_>>>().map(Value::from)
}

/// One item; what belongs to the assistant's message before it is put there, if that message came
/// from `input`, which begins at `begin`.
fn convert(item: &Value, begin: usize, chat: &mut Vec<Value>) -> Option<()> {
    let text = |name: &str| item.get(name).and_then(Value::as_str);
    if matches!(text("status"), Some("in_progress" | "incomplete")) {
        return None;
    }
    let (name, value) = match (text("type").unwrap_or("message"), text("role")) {
        ("function_call", _) if item.get("namespace").is_none_or(Value::is_null) => {
            let function = json!({"name": text("name")?, "arguments": text("arguments")?});
            let call = json!({"id": text("call_id")?, "type": "function", "function": function});
            ("tool_calls", call)
        }
        ("reasoning", _) => ("reasoning", reasoning(item)?.into()),
        ("message", Some("assistant")) => ("content", assistant_text(item)?.into()),
        ("function_call_output", _) => {
            let (id, output) = (text("call_id")?, text("output")?);
            chat.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
            return Some(());
        }
        ("message", Some(role)) => {
            let content = item.get("content")?;
            chat.push(json!({"role": role, "content": content}));
            return Some(());
        }
        _ => return None,
    };
    add(name, value, begin, chat);
    Some(())
}

fn add(name: &str, value: Value, begin: usize, chat: &mut Vec<Value>) {
    let is_call = name == "tool_calls";
    let last = chat.get_mut(begin..).and_then(<[Value]>::last_mut);
    let last = last.and_then(Value::as_object_mut).filter(|last| last["role"] == "assistant");
    match last {
        Some(last) if !last.contains_key(name) => {
            let value = if is_call { vec![value].into() } else { value };
            last.insert(name.into(), value);
        }
        Some(last) if is_call => {
            last[name].as_array_mut().into_iter().for_each(|calls| calls.push(value.clone()));
        }
        _ => {
            let value = if is_call { vec![value].into() } else { value };
            let mut message = Map::new();
            message.insert("role".into(), "assistant".into());
            message.insert(name.into(), value);
            chat.push(message.into());
        }
    }
}

/// The first text of the content, or else of the summary; encrypted reasoning is refused by vLLM.
fn reasoning(item: &Value) -> Option<&str> {
    if item.get("encrypted_content").is_some_and(|it| !it.is_null()) {
        return None;
    }
    let first = |name: &str| item.get(name)?.as_array()?.first()?.get("text")?.as_str();
    first("content").or_else(|| first("summary")).or(Some(""))
}

/// The text, or the first part's.
fn assistant_text(item: &Value) -> Option<&str> {
    match item.get("content")? {
        Value::String(text) => Some(text),
        parts => parts.as_array()?.first()?.get("text")?.as_str(),
    }
}
