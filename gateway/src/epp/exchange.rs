//! The protocol of Envoy's external processing, as a state machine without a socket: what a message
//! means, and in which messages an answer is said.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::{
    BodySendMode, HeaderSendMode,
};
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, HttpBody,
    HttpHeaders, ImmediateResponse, ProcessingRequest, ProcessingResponse, StreamedBodyResponse,
    TrailersResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::Struct;
use http::StatusCode;

/// What a message means.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// The request's head; `whole`: it has no body.
    Head { fields: HeaderMap, whole: bool },
    /// More of its body; `whole`: the last.
    Piece { bytes: Vec<u8>, whole: bool },
    /// The answer's head; `whole`: it has no body.
    Answer { fields: HeaderMap, whole: bool },
    /// More of its body; `whole`: the last.
    AnswerPiece { bytes: Vec<u8>, whole: bool },
    /// The answer is over.
    AnswerOver,
}

/// What an Envoy cannot mean, or cannot want of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    /// No head, or none first.
    #[error("{0} before the request's head: set request_header_mode to SEND")]
    NoHead(&'static str),
    /// A head when there was one.
    #[error("a second head")]
    SecondHead,
    /// Body after its end.
    #[error("a body that goes on after its end")]
    AfterEnd,
    /// A pod can be chosen only when the body is here, and not any more when it was sent on.
    #[error("request_body_mode {0}: set FULL_DUPLEX_STREAMED or BUFFERED")]
    Mode(&'static str),
    /// Nobody would act upon what we say.
    #[error("observability_mode: nothing that is decided would happen")]
    Observing,
    /// A message without a meaning.
    #[error("an empty message")]
    Empty,
}

/// What a pod gets.
#[derive(Debug, Default)]
pub(super) struct Forward {
    /// Changes of the head.
    pub head: HeaderMutation,
    /// Names the pod.
    pub destination: Struct,
    /// The body, if there is one.
    pub body: Option<Bytes>,
    /// It is not the one that came.
    pub is_changed: bool,
}

/// One request with its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    request: BodySendMode,
    answer: BodySendMode,
    stage: Stage,
    /// The request ended with trailers.
    has_trailers: bool,
    /// The request does not end with its head.
    has_body: bool,
    /// There was an answer's head.
    is_answered: bool,
}

/// A request's body as it is said again, and its trailers. Each message is made when it is asked for: all
/// of them would be the body once more.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pieces: Option<Pieces>,
    has_trailers: bool,
}

/// A body in pieces that Envoy takes, at least one.
#[derive(Debug)]
struct Pieces {
    body: Bytes,
    /// The last one is its end.
    ends: bool,
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Begin,
    Body,
    Whole,
    Forwarded,
}

/// Longest piece of a body in one message, as the Endpoint Picker has it: Envoy's limit is 64 KiB, the
/// message around it included.
const PIECE_BYTES: usize = 62_000;

// === impl Exchange ===

impl Default for Exchange {
    /// An Envoy that does not say how it sends bodies does as an Endpoint Picker wants it.
    fn default() -> Self {
        let duplex = BodySendMode::FullDuplexStreamed;
        Self {
            request: duplex,
            answer: duplex,
            stage: Stage::Begin,
            has_trailers: false,
            has_body: false,
            is_answered: false,
        }
    }
}

impl Exchange {
    /// What a message means.
    ///
    /// # Errors
    /// It has no meaning here.
    pub(super) fn on(&mut self, message: ProcessingRequest) -> Result<Event, Violation> {
        if message.observability_mode {
            return Err(Violation::Observing);
        }
        if let Some(config) = message.protocol_config {
            (self.request, self.answer) = (config.request_body_mode(), config.response_body_mode());
        }
        Ok(match message.request.ok_or(Violation::Empty)? {
            Request::RequestHeaders(head) => self.head(head)?,
            Request::RequestBody(body) => self.body(body)?,
            Request::RequestTrailers(_) => {
                self.reaches("trailers")?;
                self.has_trailers = true;
                self.stage = self.stage.max(Stage::Whole);
                Event::Piece { bytes: Vec::new(), whole: true }
            }
            // An answer may be Envoy's own, and come before the request is whole.
            Request::ResponseHeaders(_) if self.is_answered => return Err(Violation::SecondHead),
            Request::ResponseHeaders(head) => {
                self.is_answered = true;
                let (fields, whole) = (head.headers.unwrap_or_default(), head.end_of_stream);
                Event::Answer { fields, whole }
            }
            Request::ResponseBody(HttpBody { body, end_of_stream, .. }) => {
                Event::AnswerPiece { bytes: body, whole: end_of_stream }
            }
            Request::ResponseTrailers(_) => Event::AnswerOver,
        })
    }

    fn head(&mut self, head: HttpHeaders) -> Result<Event, Violation> {
        if self.stage != Stage::Begin {
            return Err(Violation::SecondHead);
        }
        let whole = head.end_of_stream;
        (self.stage, self.has_body) = (if whole { Stage::Whole } else { Stage::Body }, !whole);
        let duplex_or_whole = [BodySendMode::FullDuplexStreamed, BodySendMode::Buffered];
        if !whole && !duplex_or_whole.contains(&self.request) {
            return Err(Violation::Mode(self.request.as_str_name()));
        }
        Ok(Event::Head { fields: head.headers.unwrap_or_default(), whole })
    }

    fn body(&mut self, body: HttpBody) -> Result<Event, Violation> {
        self.reaches("a body")?;
        let (bytes, whole) = (body.body, body.end_of_stream);
        if whole {
            self.stage = self.stage.max(Stage::Whole);
        }
        Ok(Event::Piece { bytes, whole })
    }

    /// More of the request is right now.
    fn reaches(&self, what: &'static str) -> Result<(), Violation> {
        match self.stage {
            Stage::Begin => Err(Violation::NoHead(what)),
            Stage::Whole => Err(Violation::AfterEnd),
            // What goes on after its head was sent on is passed on: a WebSocket.
            Stage::Body | Stage::Forwarded => Ok(()),
        }
    }

    /// Whether the request does not end with its head.
    pub(super) fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whether the request was sent on already, so that what still comes of it only passes.
    pub(super) fn is_forwarded(&self) -> bool {
        self.stage == Stage::Forwarded
    }

    /// Whether Envoy would wait for us if we were gone: with the bodies of answers in our hands.
    pub(super) fn holds_answer(&self) -> bool {
        self.answer != BodySendMode::None
    }

    /// What an Envoy has to hear before it sends the body. `answers`: we want those of answers.
    pub(super) fn go_on(&self, answers: bool) -> Option<ProcessingResponse> {
        let waits = self.stage == Stage::Body && self.request == BodySendMode::Buffered;
        let mode_override = (!answers && self.holds_answer()).then(|| ProcessingMode {
            request_header_mode: HeaderSendMode::Send.into(),
            response_header_mode: HeaderSendMode::Send.into(),
            request_body_mode: self.request.into(),
            response_body_mode: BodySendMode::None.into(),
            request_trailer_mode: HeaderSendMode::Skip.into(),
            // The end of an answer ends its booking.
            response_trailer_mode: HeaderSendMode::Send.into(),
        });
        let response = Response::RequestHeaders(HeadersResponse::default());
        waits.then(|| ProcessingResponse { mode_override, ..say(response) })
    }

    /// Sends the request on, whole or at its head: what is said at once, and what after that.
    pub(super) fn forward(&mut self, forward: Forward) -> (ProcessingResponse, Rest) {
        let Forward { head, destination, body, is_changed } = forward;
        self.stage = Stage::Forwarded;
        let mut common = CommonResponse {
            header_mutation: Some(head),
            clear_route_cache: true,
            ..CommonResponse::default()
        };
        let with_destination =
            |response| ProcessingResponse { dynamic_metadata: Some(destination), ..say(response) };
        let Some(body) = body else {
            let response = HeadersResponse { response: Some(common) };
            return (with_destination(Response::RequestHeaders(response)), Rest::default());
        };
        if self.request == BodySendMode::Buffered {
            common.body_mutation =
                is_changed.then(|| BodyMutation { mutation: Some(Mutation::Body(body.into())) });
            let response = BodyResponse { response: Some(common) };
            return (with_destination(Response::RequestBody(response)), Rest::default());
        }
        let response = HeadersResponse { response: Some(common) };
        let has_trailers = self.has_trailers;
        let rest = Rest { pieces: Some(Pieces::of(body, !has_trailers)), has_trailers };
        (with_destination(Response::RequestHeaders(response)), rest)
    }

    /// Passes on what comes after the request was sent on.
    pub(super) fn pass(&self, bytes: Vec<u8>, whole: bool) -> Vec<ProcessingResponse> {
        if self.has_trailers {
            return vec![say(Response::RequestTrailers(TrailersResponse::default()))];
        }
        passed(self.request, bytes.into(), whole).map(|it| say(Response::RequestBody(it))).collect()
    }

    /// Passes the answer's head on.
    pub(super) fn answer(&self, head: HeaderMutation) -> ProcessingResponse {
        let common = CommonResponse { header_mutation: Some(head), ..CommonResponse::default() };
        say(Response::ResponseHeaders(HeadersResponse { response: Some(common) }))
    }

    /// Passes more of the answer's body on.
    pub(super) fn pass_answer(&self, bytes: Bytes, whole: bool) -> Vec<ProcessingResponse> {
        passed(self.answer, bytes, whole).map(|it| say(Response::ResponseBody(it))).collect()
    }

    /// Lets the answer end.
    pub(super) fn end_answer(&self) -> ProcessingResponse {
        say(Response::ResponseTrailers(TrailersResponse::default()))
    }
}

/// An answer of our own.
pub(super) fn immediate(
    status: StatusCode,
    head: HeaderMutation,
    (body, details): (Bytes, &str),
) -> ProcessingResponse {
    say(Response::ImmediateResponse(ImmediateResponse {
        status: Some(HttpStatus { code: status.as_u16().into() }),
        headers: Some(head),
        body: body.into(),
        details: details.to_owned(),
        ..ImmediateResponse::default()
    }))
}

fn say(response: Response) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

/// A piece as it came: in a full duplex it has to be said again, else a nod is enough.
fn passed(mode: BodySendMode, bytes: Bytes, whole: bool) -> Box<dyn Iterator<Item = BodyResponse>> {
    if mode != BodySendMode::FullDuplexStreamed {
        return Box::new(std::iter::once(BodyResponse::default()));
    }
    Box::new(Pieces::of(bytes, whole))
}

// === impl Rest ===

impl Iterator for Rest {
    type Item = ProcessingResponse;

    fn next(&mut self) -> Option<ProcessingResponse> {
        if let Some(piece) = self.pieces.as_mut().and_then(Iterator::next) {
            return Some(say(Response::RequestBody(piece)));
        }
        let trailers = || say(Response::RequestTrailers(TrailersResponse::default()));
        std::mem::take(&mut self.has_trailers).then(trailers)
    }
}

// === impl Pieces ===

impl Pieces {
    fn of(body: Bytes, ends: bool) -> Self {
        Self { body, ends, is_over: false }
    }
}

impl Iterator for Pieces {
    type Item = BodyResponse;

    fn next(&mut self) -> Option<BodyResponse> {
        if self.is_over {
            return None;
        }
        let piece = self.body.split_to(self.body.len().min(PIECE_BYTES));
        self.is_over = self.body.is_empty();
        let streamed = StreamedBodyResponse {
            body: piece.into(),
            end_of_stream: self.ends && self.is_over,
            ..StreamedBodyResponse::default()
        };
        let body_mutation = BodyMutation { mutation: Some(Mutation::StreamedResponse(streamed)) };
        let common =
            CommonResponse { body_mutation: Some(body_mutation), ..CommonResponse::default() };
        Some(BodyResponse { response: Some(common) })
    }
}
