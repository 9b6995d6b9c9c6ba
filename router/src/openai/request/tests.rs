use super::*;

fn prompt_of(api: Api, body: &str) -> Prompt<'_> {
    // The text is not looked at, so it may live on.
    read(api, body.as_bytes(), Box::leak(Box::default())).unwrap().prompt
}

fn text(api: Api, body: &str) -> String {
    let mut text = String::new();
    read(api, body.as_bytes(), &mut text).unwrap().text.to_owned()
}

#[test]
fn the_last_of_duplicate_keys_counts_as_it_does_in_the_pod() {
    let body = r#"{"model":"a","prompt":"x","\u006dodel":"b","prompt":"y"}"#;
    let mut text = String::new();
    let read = read(Api::Completions, body.as_bytes(), &mut text).unwrap();
    assert_eq!((read.model.as_deref(), read.text), (Some("b"), "y"));
}

#[test]
fn broken_bodies_are_refused_with_the_reason() {
    for (body, want) in [
        (&b"\xff\xfe{\x00"[..], "not valid UTF-8"),
        (b"", "EOF inside a value at byte 0"),
        (b"{\"model\":", "EOF inside a value at byte 9"),
        (b"{\"a\":NaN}", "expected"),
        (b"{\"a\":1} x", "trailing characters"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (b"[1,2]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{\"model\":7}", "`model` must be a string"),
        (b"{\"model\":\"\\ud800\"}", "a lone surrogate"),
    ] {
        let error = read(Api::Chat, body, &mut String::new()).unwrap_err().to_string();
        assert!(error.contains(want), "{body:?}: {error}");
    }
}

#[test]
fn nesting_is_bounded_where_we_look_and_free_where_we_do_not() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let body = format!(r#"{{"messages":{deep}}}"#);
    assert!(read(Api::Chat, body.as_bytes(), &mut String::new()).is_err());
    text(Api::Chat, &format!(r#"{{"unknown":{deep},"model":"m"}}"#));
}

#[test]
fn prompts_of_every_api_are_found() {
    let ids = |body| match prompt_of(Api::Completions, body) {
        Prompt::Tokens(ids) => ids,
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(r#"{"prompt":[1,2,3]}"#), [1, 2, 3]);
    assert_eq!(ids(r#"{"prompt":[[4,5],[6]]}"#), [4, 5]);
    assert!(matches!(
        prompt_of(Api::Completions, r#"{"prompt":"a"}"#),
        Prompt::Text { add_special_tokens: true, .. }
    ));
    let batch =
        prompt_of(Api::Completions, r#"{"prompt":[ "x\n" ,"y"],"add_special_tokens":false}"#);
    let is_first = matches!(batch, Prompt::Text { prompt: r#""x\n""#, add_special_tokens: false });
    assert!(is_first, "{batch:?}");
    assert!(matches!(prompt_of(Api::Completions, r#"{"prompt":[{}]}"#), Prompt::Other));
    let batch = prompt_of(Api::Batch, r#"{"messages":[ [{"role":"a"}],[] ]}"#);
    assert!(matches!(batch, Prompt::Chat { messages: r#"[{"role":"a"}]"#, .. }), "{batch:?}");
    assert!(matches!(prompt_of(Api::Batch, r#"{"messages":[]}"#), Prompt::Other));
    for (api, body, want) in [
        (Api::Completions, r#"{"prompt":"a\nb"}"#, r"a\nb"),
        (Api::Completions, r#"{"prompt":"a\u000Ab"}"#, r"a\nb"),
        (Api::Completions, r#"{"prompt":[1,2],"n":3}"#, ""),
        (Api::Completions, r#"{"prompt":["x","y"]}"#, "x\0y"),
        (Api::Tokenize, r#"{"prompt":"x","messages":[{"content":"y"}]}"#, "content\0y"),
        (Api::Responses, r#"{"input":"hi","instructions":"be"}"#, "be\0hi"),
        (Api::Messages, r#"{"messages":[{"role":"user"}],"system":"s"}"#, "s\0role\0user"),
        (Api::Score, r#"{"text_2":["b",null,1.50],"text_1":"a"}"#, "a\0b\x001.50"),
        (Api::Batch, r#"{"messages":[[{"role":"a"}],[{"role":"b"}]]}"#, "role\0a\0role\0b"),
        (Api::GenerativeScoring, r#"{"items":["b","c"],"query":"a"}"#, "a\0b\0c"),
        (Api::Decide, r#"{"state":{"x":"y"},"instructions":"be"}"#, "be\0x\0y"),
        (Api::Render, r#"{"messages":[{"role":"a"}]}"#, ""),
        (Api::Chat, r#"{"input":"not a chat's"}"#, ""),
        (Api::Chat, "{}", ""),
    ] {
        assert_eq!(text(api, body), want, "{body}");
    }
}

#[test]
fn an_effort_is_certain_in_a_chat_and_nowhere_else() {
    let body = r#"{"reasoning_effort":"low","messages":[],"input":"x"}"#;
    let chat = prompt_of(Api::Chat, body);
    assert!(matches!(chat, Prompt::Chat { reasoning_effort: Some(r#""low""#), .. }), "{chat:?}");
    for api in [Api::Tokenize, Api::Messages, Api::Responses] {
        assert!(matches!(prompt_of(api, body), Prompt::Other), "{api:?}");
    }
}

#[test]
fn what_makes_a_prompt_is_read_as_text() {
    for api in Api::ALL {
        let members = Members::read("{}").unwrap();
        for key in parts(api, &members) {
            assert!(is_text(api, key, Some(b'"')), "{api:?} {key}");
        }
    }
}

#[test]
fn what_another_api_makes_messages_of_is_not_built_where_it_is_too_much() {
    let messages = |more: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
        let mut text = String::new();
        let fields = read(Api::Messages, body.as_bytes(), &mut text).unwrap();
        let Prompt::Foreign(foreign) = fields.prompt else { panic!("it is another API's") };
        foreign.messages().is_some()
    };
    assert!(messages(""));
    assert!(!messages(&format!(r#","chat_template_kwargs":[{}0]"#, "0,".repeat(1 << 16))));
}

#[test]
fn a_conversation_that_goes_on_starts_with_the_text_of_what_it_continues() {
    let one = text(Api::Chat, r#"{"messages":[{"role":"user","content":"caf\u00e9"}]}"#);
    let two = text(
        Api::Chat,
        r#"{"messages": [ {"role":"user","content":"café"}, {"role":"assistant","content":"x"}]}"#,
    );
    assert!(two.starts_with(&one) && two.len() > one.len());
}
