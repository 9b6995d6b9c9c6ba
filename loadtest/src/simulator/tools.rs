//! Calls of tools that a request forces (`tool_choice`: `required`, or a function by name). What a
//! grammar makes of a real model's answer, a simulated model is told to say: arguments that fit the
//! function's schema. It never calls a tool by its own choice.

use serde_json::{Map, Value, json};

use super::{body::Body, errors::ApiError, generation::End};

/// The one call that an answer consists of.
#[derive(Debug, Clone)]
pub(super) struct ToolCall {
    name: String,
    /// JSON.
    pub(super) arguments: String,
    /// The function was the model's to choose.
    is_chosen: bool,
}

// === impl ToolCall ===

impl ToolCall {
    /// The call that a body forces.
    pub(super) fn of(body: &Body) -> Result<Option<Self>, ApiError> {
        let tools = body.list("tools")?.map_or(&[][..], Vec::as_slice);
        let (tool, is_chosen) = match body.get("tool_choice") {
            Some(Value::String(choice)) if choice == "required" => (tools.first(), true),
            Some(Value::Object(choice)) => {
                let name = choice.get("function").and_then(|it| it.get("name"));
                (tools.iter().find(|tool| tool.pointer("/function/name") == name), false)
            }
            _ => return Ok(None),
        };
        let function = tool.and_then(|tool| tool.get("function"));
        let name = function.and_then(|function| function["name"].as_str());
        let (Some(function), Some(name)) = (function, name) else {
            return Err(ApiError::bad("`tool_choice` names no function of `tools`."));
        };
        let arguments = function.get("parameters").map_or_else(|| json!({}), example).to_string();
        Ok(Some(Self { name: name.to_owned(), arguments, is_chosen }))
    }

    /// `tool_calls` of a whole message.
    pub(super) fn whole(&self, arguments: &str) -> Value {
        json!([{"id": id(), "type": "function", "function": {"name": self.name, "arguments": arguments}}])
    }

    /// The `delta` of a chunk; the first one names the function.
    pub(super) fn delta(&self, arguments: &str, is_first: bool) -> Value {
        let call = match is_first {
            true => json!({
                "id": id(), "type": "function", "index": 0,
                "function": {"name": self.name, "arguments": arguments},
            }),
            false if arguments.is_empty() => return json!({}),
            false => json!({"index": 0, "function": {"arguments": arguments}}),
        };
        json!({"tool_calls": [call]})
    }

    /// `finish_reason`: as in OpenAI's API, a function that the client named is no choice to stop for.
    pub(super) fn reason(&self, end: &End) -> &'static str {
        match end.reason() {
            "stop" if self.is_chosen => "tool_calls",
            reason => reason,
        }
    }
}

fn id() -> String {
    format!("chatcmpl-tool-{:032x}", rand::random::<u128>())
}

/// The simplest value of a JSON schema.
fn example(schema: &Value) -> Value {
    let listed = schema.get("enum").and_then(|values| values.get(0));
    if let Some(value) = schema.get("const").or(listed) {
        return value.clone();
    }
    match schema["type"].as_str() {
        Some("string") => "word".into(),
        Some("integer" | "number") => 1.into(),
        Some("boolean") => true.into(),
        Some("array") => json!([]),
        Some("object") | None => {
            let members = schema.get("properties").and_then(Value::as_object);
            let members = members.into_iter().flatten();
            members.map(|(name, of)| (name.clone(), example(of))).collect::<Map<_, _>>().into()
        }
        Some(_) => Value::Null,
    }
}
