use super::*;
use proptest::prelude::*;

/// A chat stream as vLLM 0.32 writes it.
const CHAT: &str = concat!(
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Pa\\\"\\nris\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\\"error\\\": {}\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":193,\"total_tokens\":195,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":192}}}\n\n",
    "data: [DONE]\n\n",
);

fn watch(stream: &str, cuts: &[usize]) -> Seen {
    let mut observer = Observer::new(Instant::now(), true, Api::Chat);
    let bytes = Bytes::copy_from_slice(stream.as_bytes());
    let mut from = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        observer.look(&bytes.slice(from..cut));
        from = cut;
    }
    observer.finish();
    Seen { ttft_ms: observer.seen.ttft_ms.map(|_| 0.0), last_token_ms: None, ..observer.seen }
}

#[test]
fn the_first_token_is_the_first_content_not_the_role() {
    let mut observer = Observer::new(Instant::now(), true, Api::Chat);
    let role_end = CHAT.find("\n\n").unwrap() + 2;
    assert!(!observer.look(&Bytes::from_static(&CHAT.as_bytes()[..role_end])));
    assert!(observer.look(&Bytes::from_static(&CHAT.as_bytes()[role_end..])));
    assert!(!observer.look(&Bytes::from_static(b"data: {\"choices\":[{\"text\":\"x\"}]}\n")));
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_facts(mut cuts in prop::collection::vec(0..CHAT.len(), 0..20)) {
        cuts.sort_unstable();
        let want = Seen {
            ttft_ms: Some(0.0),
            last_token_ms: None,
            output_tokens: 2,
            prompt_tokens: Some(193),
            cached_tokens: Some(192),
            has_error: false,
        };
        prop_assert_eq!(watch(CHAT, &cuts), want);
    }
}

#[test]
fn an_error_event_is_seen_and_a_text_about_errors_is_not_one() {
    let error = "data: {\"error\": {\"message\": \"gone\", \"code\": 500}}\n\ndata: [DONE]\n\n";
    assert!(watch(error, &[]).has_error);
    assert!(!watch(CHAT, &[]).has_error);
    assert!(!watch("data: {\"id\":\"r\",\"error\":null,\"x\":\"\"}\n", &[]).has_error);
}

#[test]
fn a_plain_answer_gives_its_usage_from_the_tail() {
    let mut observer = Observer::new(Instant::now(), false, Api::Chat);
    let padding = format!("{{\"choices\":[\"{}\"],", "x".repeat(3 * TAIL));
    let usage = "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"prompt_tokens_details\":null},\"k\":1}";
    for part in (padding + usage).as_bytes().chunks(1_000) {
        observer.look(&Bytes::copy_from_slice(part));
    }
    observer.finish();
    assert_eq!((observer.seen.prompt_tokens, observer.seen.output_tokens), (Some(5), 7));
    assert_eq!((observer.seen.cached_tokens, observer.seen.ttft_ms), (None, None));
}

#[test]
fn an_endless_line_is_not_kept() {
    let mut observer = Observer::new(Instant::now(), true, Api::Chat);
    for _ in 0..100 {
        observer.look(&Bytes::from(vec![b'x'; 10_000]));
        assert!(observer.tail.len() <= MAX_LINE);
    }
    assert!(observer.is_mid_line());
    observer.look(&Bytes::from_static(b"\ndata: {\"choices\":[{\"text\":\"hi\"}]}\n"));
    assert_eq!((observer.seen.output_tokens, observer.is_mid_line()), (1, false));
}

#[test]
fn the_first_token_of_ids_is_the_first_id_and_not_the_prompts() {
    let mut observer = Observer::new(Instant::now(), true, Api::Generate);
    let head = "data: {\"prompt_token_ids\":[1,2],\"choices\":[{\"token_ids\":[]}]}\n\n";
    assert!(!observer.look(&Bytes::from_static(head.as_bytes())));
    let token = "data: {\"choices\":[{\"index\":0,\"token_ids\":[7]}]}\n\n";
    assert!(observer.look(&Bytes::from_static(token.as_bytes())));
}
