use super::*;

#[test]
fn a_list_of_vllm_is_read_with_its_adapters() {
    let body = br#"{"object":"list","data":[
        {"id":"tiny","object":"model","created":1,"owned_by":"vllm","root":"/m","parent":null,"max_model_len":8192,"permission":[]},
        {"id":"tiny-sql","object":"model","root":"/a","parent":"tiny","max_model_len":null}]}"#;
    let cards = parse_models(body).expect("it is a list of models");
    let read: Vec<_> =
        cards.iter().map(|c| (&*c.id, c.parent.as_deref(), c.max_model_len)).collect();
    assert_eq!(read, [("tiny", None, Some(8192)), ("tiny-sql", Some("tiny"), None)]);
    assert!(cards[0].raw.starts_with(r#"{"id":"tiny","object":"model","created":1"#));
}

#[test]
fn anything_but_a_list_of_models_is_a_failed_probe() {
    for body in ["", "{}", r#"{"data":[]}"#, r#"{"data":[{"object":"model"}]}"#, "<html>"] {
        assert!(parse_models(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn a_starting_pod_is_asked_every_second_and_a_fallen_one_less_and_less() {
    let settings = ProbeSettings::default();
    let waits = |was_good| [0, 1, 2, 3, 4, 50].map(|n| settings.wait(n, was_good).as_secs());
    assert_eq!(waits(false), [5, 1, 1, 1, 1, 1]);
    assert_eq!(waits(true), [5, 1, 2, 4, 5, 5]);
}
