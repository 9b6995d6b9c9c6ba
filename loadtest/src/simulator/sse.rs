//! Server-sent events: the 200 leaves at once, before the prefill, as vLLM's does.

use std::io;

use axum::{
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde_json::Value;

use super::generation::{End, Event};

/// One API's way of writing events.
pub(super) trait Wire: Send + 'static {
    /// Writes the chunks of one event.
    fn event(&mut self, event: &Event, out: &mut String);
    /// Writes what comes after the last event.
    fn end(&mut self, out: &mut String);
}

/// Where a stream is.
enum Stage {
    Running,
    Ended,
}

/// The streaming response. Dropping its body, as a disconnect does, aborts the requests.
pub(super) fn response(events: BoxStream<'static, Event>, wire: impl Wire) -> Response {
    let body = stream::unfold(
        (events, wire, Stage::Running),
        |(mut events, mut wire, stage)| async move {
            if matches!(stage, Stage::Ended) {
                return None;
            }
            let mut out = String::new();
            let stage = match events.next().await {
                Some(Event { end: Some(End::Closed), .. }) => return None,
                Some(Event { end: Some(End::Cut), .. }) => {
                    let cut = Err(io::Error::from(io::ErrorKind::ConnectionReset));
                    return Some((cut, (events, wire, Stage::Ended)));
                }
                Some(Event { end: Some(end @ (End::Dead | End::Failed)), .. }) => {
                    let error = end.error().expect("these ends are errors");
                    data(&mut out, &error.json());
                    done(&mut out);
                    Stage::Ended
                }
                Some(event) => {
                    wire.event(&event, &mut out);
                    Stage::Running
                }
                None => {
                    wire.end(&mut out);
                    Stage::Ended
                }
            };
            Some((Ok(Bytes::from(out)), (events, wire, stage)))
        },
    )
    // An empty chunk would end a chunked body.
    .filter(|chunk| std::future::ready(chunk.as_ref().map_or(true, |chunk| !chunk.is_empty())));
    let content_type = (CONTENT_TYPE, "text/event-stream; charset=utf-8");
    ([content_type], Body::from_stream(body)).into_response()
}

/// Writes `data: {…}`.
pub(super) fn data(out: &mut String, value: &Value) {
    out.push_str("data: ");
    out.push_str(&value.to_string());
    out.push_str("\n\n");
}

/// Writes `event: …` and `data: {…}`; the event's name is the data's `type`.
pub(super) fn named(out: &mut String, value: &Value) {
    out.push_str("event: ");
    out.push_str(value.get("type").and_then(Value::as_str).unwrap_or_default());
    out.push('\n');
    data(out, value);
}

/// Writes `data: [DONE]`.
pub(super) fn done(out: &mut String) {
    out.push_str("data: [DONE]\n\n");
}
