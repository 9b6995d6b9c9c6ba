use super::*;

fn fields(api: Api, body: &str) -> Fields<'_> {
    read(api, body.as_bytes()).unwrap()
}

fn canonical(api: Api, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    fields(api, body).prompt.canonical(&mut out).unwrap();
    out
}

#[test]
fn the_last_of_duplicate_keys_counts_as_it_does_in_the_pod() {
    let read = fields(Api::Chat, r#"{"model":"a","\u006dodel":"b"}"#);
    assert_eq!(read.model.as_deref(), Some("b"));
}

#[test]
fn broken_bodies_are_refused_with_the_reason() {
    for (body, want) in [
        (&b"\xff\xfe{\x00"[..], "not valid UTF-8"),
        (b"", "EOF while parsing"),
        (b"{\"model\":", "EOF while parsing"),
        (b"{\"a\":NaN}", "expected"),
        (b"{\"a\":1} x", "trailing characters"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (b"[1,2]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{\"model\":7}", "`model` must be a string"),
        (b"{\"model\":\"\\ud800\"}", "hex escape"),
    ] {
        let error = read(Api::Chat, body).unwrap_err().to_string();
        assert!(error.contains(want), "{body:?}: {error}");
    }
}

#[test]
fn nesting_is_bounded_where_we_look_and_free_where_we_do_not() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let body = format!(r#"{{"messages":{deep}}}"#);
    let prompt = fields(Api::Chat, &body).prompt;
    assert!(prompt.canonical(&mut Vec::new()).is_err());
    fields(Api::Chat, &format!(r#"{{"unknown":{deep},"model":"m"}}"#));
}

#[test]
fn prompts_of_every_api_are_found() {
    let ids = |body| match fields(Api::Completions, body).prompt {
        Prompt::Tokens(ids) => ids,
        other => panic!("{other:?}"),
    };
    assert_eq!(ids(r#"{"prompt":[1,2,3]}"#), [1, 2, 3]);
    assert_eq!(ids(r#"{"prompt":[[4,5],[6]]}"#), [4, 5]);
    let text = fields(Api::Completions, r#"{"prompt":"a\nb"}"#).prompt;
    assert!(matches!(text, Prompt::Text(text) if text == "a\nb"));
    assert_eq!(canonical(Api::Completions, r#"{"prompt":["x","y"]}"#), b"x\0y\0");
    assert_eq!(canonical(Api::Responses, r#"{"input":"hi","instructions":"be"}"#), b"be\0hi\0");
    assert_eq!(
        canonical(Api::Messages, r#"{"messages":[{"role":"user"}],"system":"s"}"#),
        b"s\0role\0user\0"
    );
    assert_eq!(canonical(Api::Chat, "{}"), b"");
}

#[test]
fn a_conversation_that_goes_on_starts_with_the_bytes_of_what_it_continues() {
    let one = canonical(Api::Chat, r#"{"messages":[{"role":"user","content":"caf\u00e9"}]}"#);
    let two = canonical(
        Api::Chat,
        r#"{"messages": [ {"role":"user","content":"café"}, {"role":"assistant","content":"x"}]}"#,
    );
    assert!(two.starts_with(&one) && two.len() > one.len());
}
