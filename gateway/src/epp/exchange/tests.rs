use envoy_types::pb::envoy::service::ext_proc::v3::{HttpTrailers, ProtocolConfiguration};

use super::*;

const DUPLEX: BodySendMode = BodySendMode::FullDuplexStreamed;

fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

/// The first message of an Envoy that sends bodies so.
fn head(request: BodySendMode, answer: BodySendMode, whole: bool) -> ProcessingRequest {
    let head = HttpHeaders { end_of_stream: whole, ..HttpHeaders::default() };
    let protocol_config = Some(ProtocolConfiguration {
        request_body_mode: request.into(),
        response_body_mode: answer.into(),
        send_body_without_waiting_for_header_response: false,
    });
    ProcessingRequest { protocol_config, ..message(Request::RequestHeaders(head)) }
}

fn piece(bytes: &[u8], whole: bool) -> ProcessingRequest {
    let body = HttpBody { body: bytes.into(), end_of_stream: whole, ..HttpBody::default() };
    message(Request::RequestBody(body))
}

fn trailers() -> ProcessingRequest {
    message(Request::RequestTrailers(HttpTrailers::default()))
}

/// One that has heard the head of a request with a body.
fn begun(request: BodySendMode) -> Exchange {
    let mut exchange = Exchange::default();
    exchange.on(head(request, BodySendMode::None, false)).expect("it is a head");
    exchange
}

fn forward(body: &[u8], is_changed: bool) -> Forward {
    Forward { body: Some(Bytes::copy_from_slice(body)), is_changed, ..Forward::default() }
}

/// All that is said when a request is sent on.
fn sent_on(exchange: &mut Exchange, forward: Forward) -> Vec<ProcessingResponse> {
    let (first, rest) = exchange.forward(forward);
    std::iter::once(first).chain(rest).collect()
}

/// What is said, in a word each; pieces of a body with their length, and a point at its end.
fn words(said: &[ProcessingResponse]) -> Vec<String> {
    let of_body = |body: &BodyResponse| {
        let common = body.response.as_ref();
        match common.and_then(|it| it.body_mutation.as_ref()?.mutation.as_ref()) {
            Some(Mutation::StreamedResponse(it)) => {
                format!("{}{}", it.body.len(), if it.end_of_stream { "." } else { "" })
            }
            Some(Mutation::Body(body)) => format!("={}", body.len()),
            _ => "as it is".to_owned(),
        }
    };
    let word = |response: &ProcessingResponse| match response.response.as_ref().expect("a word") {
        Response::RequestHeaders(_) => "head".to_owned(),
        Response::RequestTrailers(_) => "trailers".to_owned(),
        Response::RequestBody(body) | Response::ResponseBody(body) => of_body(body),
        other => format!("{other:?}"),
    };
    said.iter().map(word).collect()
}

#[test]
fn a_body_that_is_streamed_is_said_again_in_pieces_that_envoy_takes() {
    let mut exchange = begun(DUPLEX);
    assert!(exchange.go_on(false).is_none(), "nothing is said before the body is here");
    let part = Event::Piece { bytes: b"ab".to_vec(), whole: false };
    assert_eq!(exchange.on(piece(b"ab", false)), Ok(part));
    assert!(exchange.on(piece(b"", true)).is_ok());
    let said = sent_on(&mut exchange, forward(&[7; 130_000], false));
    assert_eq!(words(&said), ["head", "62000", "62000", "6000."]);
    assert_eq!(
        said[0].response,
        Some(Response::RequestHeaders(HeadersResponse {
            response: Some(CommonResponse {
                header_mutation: Some(HeaderMutation::default()),
                clear_route_cache: true,
                ..CommonResponse::default()
            }),
        }))
    );
    let mut empty = begun(DUPLEX);
    assert!(empty.on(piece(b"", true)).is_ok());
    assert_eq!(words(&sent_on(&mut empty, forward(b"", false))), ["head", "0."]);
}

#[test]
fn trailers_end_a_body_and_are_let_through_behind_it() {
    let mut exchange = begun(DUPLEX);
    assert!(exchange.on(piece(b"ab", false)).is_ok());
    let end = Event::Piece { bytes: Vec::new(), whole: true };
    assert_eq!(exchange.on(trailers()), Ok(end));
    assert_eq!(words(&sent_on(&mut exchange, forward(b"ab", false))), ["head", "2", "trailers"]);
}

#[test]
fn a_body_that_is_held_by_envoy_is_asked_for_and_stays_there() {
    for (changed, word) in [(false, "as it is"), (true, "=2")] {
        let mut exchange = begun(BodySendMode::Buffered);
        let asked = exchange.go_on(false).expect("Envoy waits for it");
        assert_eq!(asked.mode_override, None, "bodies of answers stay away anyhow");
        assert_eq!(words(&[asked]), ["head"]);
        assert!(exchange.on(piece(b"ab", true)).is_ok());
        assert_eq!(words(&sent_on(&mut exchange, forward(b"ab", changed))), [word]);
    }
}

#[test]
fn an_envoy_that_would_send_answers_is_told_not_to() {
    let mut exchange = Exchange::default();
    let first = head(BodySendMode::Buffered, BodySendMode::Streamed, false);
    assert!(exchange.on(first).is_ok());
    let mode = exchange.go_on(false).and_then(|said| said.mode_override).expect("an override");
    assert_eq!(mode.request_body_mode(), BodySendMode::Buffered, "what is under way stays");
    assert_eq!(mode.response_body_mode(), BodySendMode::None);
    assert_eq!(mode.response_trailer_mode(), HeaderSendMode::Send);
    assert_eq!(exchange.go_on(true).and_then(|said| said.mode_override), None, "they are wanted");
}

#[test]
fn a_request_without_a_body_is_its_head() {
    for mode in [DUPLEX, BodySendMode::Buffered, BodySendMode::None] {
        let mut exchange = Exchange::default();
        let whole = exchange.on(head(mode, BodySendMode::None, true));
        assert!(matches!(whole, Ok(Event::Head { whole: true, .. })));
        assert!(exchange.go_on(false).is_none());
        assert_eq!(words(&sent_on(&mut exchange, Forward::default())), ["head"]);
    }
}

#[test]
fn an_answers_body_passes_as_its_mode_wants_it() {
    for (mode, word) in [(DUPLEX, "2."), (BodySendMode::Streamed, "as it is")] {
        let mut exchange = Exchange::default();
        assert!(exchange.on(head(DUPLEX, mode, true)).is_ok());
        assert_eq!(words(&exchange.pass_answer(Bytes::from_static(b"ab"), true)), [word]);
    }
}

#[test]
fn what_goes_on_after_its_head_was_sent_on_passes() {
    let mut exchange = begun(DUPLEX);
    assert_eq!(words(&sent_on(&mut exchange, Forward::default())), ["head"]);
    assert!(exchange.is_forwarded());
    assert!(exchange.on(piece(b"abc", false)).is_ok());
    assert_eq!(words(&exchange.pass(b"abc".to_vec(), false)), ["3"]);
}

#[test]
fn what_has_no_meaning_is_named() {
    let mut second = begun(DUPLEX);
    let again = head(DUPLEX, BodySendMode::None, false);
    assert_eq!(second.on(again), Err(Violation::SecondHead));
    assert_eq!(Exchange::default().on(piece(b"", true)), Err(Violation::NoHead("a body")));
    assert_eq!(Exchange::default().on(trailers()), Err(Violation::NoHead("trailers")));
    let mut ended = begun(DUPLEX);
    assert!(ended.on(piece(b"", true)).is_ok());
    assert_eq!(ended.on(piece(b"", true)), Err(Violation::AfterEnd));
    let answer = || message(Request::ResponseHeaders(HttpHeaders::default()));
    assert!(second.on(answer()).is_ok());
    assert_eq!(second.on(answer()), Err(Violation::SecondHead));
    assert_eq!(Exchange::default().on(ProcessingRequest::default()), Err(Violation::Empty));
    let watching = ProcessingRequest { observability_mode: true, ..trailers() };
    assert_eq!(begun(DUPLEX).on(watching), Err(Violation::Observing));
    for (mode, name) in [
        (BodySendMode::Streamed, "STREAMED"),
        (BodySendMode::BufferedPartial, "BUFFERED_PARTIAL"),
        (BodySendMode::None, "NONE"),
    ] {
        let refused = Exchange::default().on(head(mode, BodySendMode::None, false));
        assert_eq!(refused, Err(Violation::Mode(name)));
    }
}
