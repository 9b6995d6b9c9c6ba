use proptest::prelude::*;

use super::*;

fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut parser = SseParser::new();
    let mut out = Vec::new();
    for chunk in chunks {
        parser
            .push(chunk, |data| out.push(String::from_utf8_lossy(data).into_owned()))
            .expect("the events are small");
    }
    out
}

/// The format's rules said plainly, over the whole text at once: what the parser must equal.
fn naive(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = Vec::new();
    let mut data: Vec<&str> = Vec::new();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in complete.split('\n') {
        if line.is_empty() {
            if !data.is_empty() {
                out.push(data.join("\n"));
            }
            data.clear();
        } else if line == "data" {
            data.push("");
        } else if let Some(value) = line.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value));
        }
    }
    out
}

#[test]
fn vllm_frames_come_out_one_by_one() {
    let stream = b"data: {\"a\":1}\n\ndata: {\"b\":2}\n\ndata: [DONE]\n\n";
    assert_eq!(events([&stream[..]]), ["{\"a\":1}", "{\"b\":2}", "[DONE]"]);
}

#[test]
fn a_crlf_split_between_two_chunks_is_one_line_end() {
    assert_eq!(events([&b"data: a\r"[..], b"\ndata: b\r", b"\n\r", b"\n"]), ["a\nb"]);
}

#[test]
fn comments_other_fields_and_a_byte_order_mark_are_skipped() {
    let stream = b"\xEF\xBB\xBF: ping\nevent: x\nid: 7\ndata:no space\ndatax: y\n\n: end\n\n";
    assert_eq!(events([&stream[..]]), ["no space"]);
}

#[test]
fn an_unfinished_event_is_not_given_out_and_is_told() {
    let mut parser = SseParser::new();
    parser.push(b"data: half\n", |_| panic!("the event has no end yet")).expect("small");
    assert!(parser.is_mid_event());
    parser.push(b"\n", |data| assert_eq!(data, b"half")).expect("small");
    assert!(!parser.is_mid_event());
}

#[test]
fn a_line_without_end_is_refused_at_the_bound() {
    let mut parser = SseParser::new();
    let chunk = vec![b'x'; MAX_EVENT_BYTES / 4];
    let refused = (0..5).map(|_| parser.push(&chunk, |_| ())).find(Result::is_err);
    assert_eq!(refused, Some(Err(SseError::TooLarge)));
}

proptest! {
    #[test]
    fn any_chunking_gives_what_the_whole_text_gives(
        lines in prop::collection::vec(
            prop_oneof![
                Just(String::new()),
                "data: ?[ -~é]{0,12}",
                "data",
                ": [a-z]{0,4}",
                "event: [a-z]{1,3}",
                "[a-z :]{1,6}",
            ],
            0..24,
        ),
        ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 24),
        cuts in prop::collection::vec(1usize..9, 1..64),
        mark in any::<bool>(),
    ) {
        let mut text = String::from(if mark { "\u{feff}" } else { "" });
        for (line, end) in lines.iter().zip(&ends) {
            text.push_str(line);
            text.push_str(end);
        }
        // A final CR may still grow into a CRLF: end on something that cannot.
        text.push_str(":\n");
        let mut chunks = Vec::new();
        let mut rest = text.as_bytes();
        let mut sizes = cuts.iter().cycle();
        while !rest.is_empty() {
            let size = (*sizes.next().expect("cycle never ends")).min(rest.len());
            let (chunk, after) = rest.split_at(size);
            chunks.push(chunk);
            rest = after;
        }
        let expected = naive(&text);
        prop_assert_eq!(&events(chunks), &expected);
        prop_assert_eq!(&events([text.as_bytes()]), &expected);
    }
}
