//! `/v1/messages` to chat messages, as vLLM 0.32 converts them (`entrypoints/anthropic/serving.py`).
//!
//! Whatever is not certain (images, tool references, inline system messages, tools that come and go)
//! is told as such: none.

use serde_json::{Map, Value, json};

/// What an Anthropic client puts before everything else, different in each request: vLLM drops it.
const BILLING: &str = "x-anthropic-billing-header";

/// The chat messages of a request, given its `system` and `messages`.
pub(super) fn messages(system: Option<&Value>, messages: &Value) -> Option<Value> {
    let mut chat = Vec::new();
    let system = match system {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(blocks) => system_text(blocks)?,
    };
    if !system.is_empty() {
        chat.push(json!({"role": "system", "content": system}));
    }
    for message in messages.as_array()? {
        convert(message, &mut chat)?;
    }
    Some(chat.into())
}

/// The tools in the shape of the chat API's; what does not belong there is dropped with the rest when
/// the template gets them.
pub(super) fn tools(tools: &Value) -> Option<Value> {
    let tools = tools.as_array()?.iter().map(|tool| {
        // A tool without a schema is one of Anthropic's own.
        let schema = tool.get("input_schema").filter(|schema| schema.is_object())?;
        let mut function = tool.as_object()?.clone();
        function.insert("parameters".into(), schema.clone());
        Some(json!({"type": "function", "function": function}))
    });
    tools.collect::<Option<Vec<_>>>().map(Value::from)
}

fn system_text(blocks: &Value) -> Option<String> {
    let mut text = String::new();
    for block in blocks.as_array()? {
        let part = block.get("text").and_then(Value::as_str).unwrap_or_default();
        if block["type"] == "text" && !part.starts_with(BILLING) {
            text.push_str(part);
        }
    }
    Some(text)
}

fn convert(message: &Value, chat: &mut Vec<Value>) -> Option<()> {
    let role =
        message.get("role")?.as_str().filter(|role| matches!(*role, "user" | "assistant"))?;
    let mut converted = Map::new();
    converted.insert("role".into(), role.into());
    match message.get("content")? {
        Value::String(text) => drop(converted.insert("content".into(), text.as_str().into())),
        Value::Array(blocks) => {
            let (mut parts, mut calls, mut reasoning) = (Vec::new(), Vec::new(), Vec::new());
            for block in blocks {
                let text = |name: &str| block.get(name).and_then(Value::as_str);
                match text("type")? {
                    "text" => parts.extend(text("text").filter(|text| !text.is_empty())),
                    "thinking" => reasoning.push(text("thinking")?),
                    "redacted_thinking" => {}
                    "tool_use" => calls.push(tool_call(block)),
                    "tool_result" if role == "user" => chat.push(tool_result(block)?),
                    _ => return None,
                }
            }
            if !reasoning.is_empty() {
                converted.insert("reasoning".into(), reasoning.concat().into());
            }
            if !calls.is_empty() {
                converted.insert("tool_calls".into(), calls.into());
            }
            match parts.as_slice() {
                [] => {}
                [only] => drop(converted.insert("content".into(), (*only).into())),
                _ => {
                    let parts = parts.iter().map(|text| json!({"type": "text", "text": text}));
                    converted.insert("content".into(), parts.collect());
                }
            }
        }
        _ => return None,
    }
    if role == "assistant" || converted.contains_key("content") {
        chat.push(converted.into());
    }
    Some(())
}

fn tool_call(block: &Value) -> Value {
    let field = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
    let input = block.get("input").filter(|input| !input.is_null()).cloned();
    let arguments = input.unwrap_or_else(|| json!({}));
    let function = json!({"name": field("name"), "arguments": arguments});
    json!({"id": field("id"), "type": "function", "function": function})
}

fn tool_result(block: &Value) -> Option<Value> {
    let text = match block.get("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(parts) => {
            let text = |part: &Value| {
                let is_text = part["type"] == "text";
                is_text.then(|| part.get("text").and_then(Value::as_str).map(str::to_owned))?
            };
            parts.as_array()?.iter().map(text).collect::<Option<Vec<_>>>()?.join("\n")
        }
    };
    let id = block.get("tool_use_id").cloned().unwrap_or_default();
    Some(json!({"role": "tool", "tool_call_id": id, "content": text}))
}
