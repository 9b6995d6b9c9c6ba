//! Templates and messages on their own; whole tokenizers are tested in `tests/tokenize.rs`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ChatRequest, ChatTemplate, SpecialTokens, TokenizeError};

fn render(source: &str, body: &Value) -> Result<String, TokenizeError> {
    let specials = SpecialTokens::from_config(&json!({
        "bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}
    }));
    let request = ChatRequest::from_body(body, Timestamp::UNIX_EPOCH)?;
    ChatTemplate::new(source, specials)?.render(&request)
}

const PLAIN: &str = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}\
    {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

#[test]
fn text_parts_are_joined_by_a_newline_and_null_is_empty() {
    let body = json!({"messages": [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": null},
    ]});
    let text = render(PLAIN, &body).expect("renders");
    assert_eq!(text, "<s>user:one\ntwo</s>assistant:</s>assistant:");
}

#[test]
fn calls_of_tools_with_more_values_than_may_be_built_are_not_built() {
    let arguments = |values: usize| format!("[{}0]", "0,".repeat(values));
    let body = |values| {
        let call = json!({"function": {"name": "f", "arguments": arguments(values)}});
        json!({"messages": [{"role": "assistant", "tool_calls": [call, call]}]})
    };
    assert!(render(PLAIN, &body(32_000)).is_ok());
    assert!(matches!(render(PLAIN, &body(33_000)), Err(TokenizeError::Messages(_))));
}

#[test]
fn a_template_that_loops_over_parts_gets_parts() {
    let source = "{% for message in messages %}{% for part in message.content %}[{{ part.text }}]\
        {% endfor %}{% endfor %}";
    let body = json!({"messages": [{"role": "user", "content": "plain"}]});
    assert_eq!(render(source, &body).expect("renders"), "[plain]");
}

#[test]
fn a_membership_test_on_content_is_not_a_loop() {
    let source = "{% for message in messages %}{% if '</think>' in message.content %}T{% endif %}\
        {{ message.content }}{% endfor %}";
    let body = json!({"messages": [{"role": "user", "content": "x</think>"}]});
    assert_eq!(render(source, &body).expect("renders"), "Tx</think>");
}

#[test]
fn a_tool_calls_arguments_are_an_object_in_the_template() {
    let source = "{% for m in messages %}{% for c in m.tool_calls %}\
        {{ c.function.arguments | tojson }}{% endfor %}{% endfor %}";
    let body = json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"b\":1,\"a\":[1,2]}"}}
    ]}]});
    assert_eq!(render(source, &body).expect("renders"), r#"{"b": 1, "a": [1, 2]}"#);
}

#[test]
fn tojson_writes_as_python_does() {
    let tool = json!({"z": "Wetter für \"Ort\" <b>", "a": [], "n": 9_007_199_254_740_993_i64});
    let body = json!({"messages": [], "tools": [tool]});
    assert_eq!(
        render("{{ tools[0] | tojson }}", &body).expect("renders"),
        r#"{"z": "Wetter für \"Ort\" <b>", "a": [], "n": 9007199254740993}"#
    );
    assert_eq!(
        render("{{ tools[0].a | tojson(indent=4) }}{{ [1] | tojson(indent=2) }}", &body)
            .expect("renders"),
        "[][\n  1\n]"
    );
    assert_eq!(
        render("{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}", &body).expect("renders"),
        r#"{"a":[1,2]}"#
    );
}

#[test]
fn strftime_now_prints_the_time_it_was_given() {
    let body = json!({"messages": []});
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}", &body).expect("renders"), "01 Jan 1970");
}

#[test]
fn a_template_that_raises_is_an_error_with_its_words() {
    let error = render("{{ raise_exception('roles must alternate') }}", &json!({"messages": []}))
        .expect_err("the template refuses");
    assert!(error.to_string().contains("roles must alternate"), "{error}");
}

#[test]
fn continuing_the_final_message_ends_inside_it() {
    let body = json!({
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once "}],
        "add_generation_prompt": false, "continue_final_message": true,
    });
    assert_eq!(render(PLAIN, &body).expect("renders"), "<s>user:Hi</s>assistant:Once ");
}

#[test]
fn an_image_is_refused_and_named() {
    let body = json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]});
    let error = render(PLAIN, &body).expect_err("no tokens for an image");
    assert!(matches!(error, TokenizeError::Multimodal(kind) if kind == "image_url"));
}

#[test]
fn messages_of_the_wrong_type_are_errors() {
    for messages in [json!("x"), json!([1]), json!([{"role": "user", "content": 5}]), json!(null)] {
        let body = json!({"messages": messages});
        let error = render(PLAIN, &body).expect_err("not messages");
        assert!(matches!(error, TokenizeError::Messages(_)), "{error}");
    }
}

#[test]
fn template_kwargs_are_variables_and_cannot_replace_the_messages() {
    let body = json!({
        "messages": [{"role": "user", "content": "real"}],
        "chat_template_kwargs": {"enable_thinking": false, "messages": []},
    });
    let source = "{{ enable_thinking }}{{ messages | length }}";
    assert_eq!(render(source, &body).expect("renders"), "False1");
}
