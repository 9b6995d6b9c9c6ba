//! Reads one answer as it arrives, noting when its tokens came.

use futures_util::StreamExt;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

use super::SseParser;
use super::answer::{Answer, Failure};
use super::chunk::Chunk;

/// The most text of one answer that is kept. A turn that quotes an answer needs all of a short one.
const MAX_TEXT_BYTES: usize = 64 << 10;
/// The most inter-token gaps that are kept: the longest answer of a 128 k-context model.
const MAX_GAPS: usize = 128 << 10;
/// The largest answer that is not a stream.
const MAX_BODY_BYTES: usize = 64 << 20;

/// Fills `answer` from `response`; the error says why it is not complete.
pub(super) async fn receive(
    mut response: reqwest::Response,
    stream: bool,
    answer: &mut Answer,
) -> Result<(), Failure> {
    answer.status = Some(response.status());
    answer.headers = std::mem::take(response.headers_mut());
    let is_events = answer
        .header(CONTENT_TYPE.as_str())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    if response.status() != StatusCode::OK {
        let status = response.status();
        let body = read_whole(response, answer).await?;
        return Err(Failure::Status { status, message: error_message(&body) });
    }
    if stream && is_events {
        return read_events(response, answer).await;
    }
    let body = read_whole(response, answer).await?;
    let chunk = Chunk::parse(&body).map_err(|error| Failure::Malformed(error.to_string()))?;
    answer.usage = chunk.usage;
    answer.text = chunk.text;
    truncate(&mut answer.text);
    chunk.error.map_or(Ok(()), |message| Err(Failure::ErrorEvent(message)))
}

async fn read_whole(response: reqwest::Response, answer: &mut Answer) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Failure::from_reqwest(&error))?;
        answer.timing.ttft.get_or_insert_with(|| answer.timing.sent_at.elapsed());
        if body.len() + part.len() > MAX_BODY_BYTES {
            return Err(Failure::Malformed(format!("more than {MAX_BODY_BYTES} bytes")));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// What has been read of a stream so far.
struct Reading<'a> {
    answer: &'a mut Answer,
    last_token_at: Option<Instant>,
    done: bool,
    failure: Option<Failure>,
}

async fn read_events(response: reqwest::Response, answer: &mut Answer) -> Result<(), Failure> {
    let mut parser = SseParser::new();
    let mut reading = Reading { answer, last_token_at: None, done: false, failure: None };
    let mut parts = response.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Failure::from_reqwest(&error))?;
        let now = Instant::now();
        parser.push(&part, |data| reading.take(data, now))?;
    }
    match reading.failure {
        Some(failure) => Err(failure),
        None if reading.done => Ok(()),
        None => Err(Failure::Truncated),
    }
}

// === impl Reading ===

impl Reading<'_> {
    fn take(&mut self, data: &[u8], now: Instant) {
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        match Chunk::parse(data) {
            Err(error) => self.fail(Failure::Malformed(error.to_string())),
            Ok(chunk) => {
                if let Some(message) = chunk.error {
                    self.fail(Failure::ErrorEvent(message));
                }
                if chunk.usage.is_some() {
                    self.answer.usage = chunk.usage;
                }
                if !chunk.text.is_empty() {
                    self.token(&chunk.text, now);
                }
            }
        }
    }

    fn token(&mut self, text: &str, now: Instant) {
        let timing = &mut self.answer.timing;
        match self.last_token_at.replace(now) {
            None => timing.ttft = Some(now - timing.sent_at),
            Some(before) if timing.gaps.len() < MAX_GAPS => timing.gaps.push(now - before),
            Some(_) => {}
        }
        if self.answer.text.len() < MAX_TEXT_BYTES {
            self.answer.text.push_str(text);
            truncate(&mut self.answer.text);
        }
    }

    /// The first failure is the cause; later ones are its echoes.
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}

fn error_message(body: &[u8]) -> String {
    if let Ok(Chunk { error: Some(message), .. }) = Chunk::parse(body) {
        return message;
    }
    String::from_utf8_lossy(body).chars().take(200).collect()
}

fn truncate(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
}

#[cfg(test)]
mod tests;
