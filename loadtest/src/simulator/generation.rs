//! From tickets to the events that every API shape is written from.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use router::tokenize::{TextStream, Tokenizer};

use super::{
    body::Sampling,
    driver::{Driver, Ticket},
    engine::Busy,
    sequence::{Finish, Prompt},
};

/// What became visible for one choice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) choice: usize,
    pub(super) text: String,
    /// Ids generated since the last event, end token included.
    pub(super) token_ids: Vec<u32>,
    pub(super) cached_tokens: usize,
    pub(super) end: Option<End>,
}

/// Why a choice ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The model's end token.
    Model,
    /// A stop token or stop string of the request.
    Token(u32),
    Text(String),
    /// The token limit.
    Length,
    /// The engine stopped under it.
    Dead,
}

/// The choices of one API request, running.
pub(super) struct Generation {
    pub(super) events: BoxStream<'static, Event>,
    /// Prompt tokens of all prompts together.
    pub(super) prompt_tokens: usize,
    /// Prompts, for `return_token_ids`.
    pub(super) prompts: Vec<Arc<[u32]>>,
    /// Choices per prompt.
    pub(super) n: usize,
}

/// One choice's way from ids to text.
struct Choice {
    index: usize,
    ticket: Ticket,
    tokenizer: Arc<Tokenizer>,
    text: TextStream,
    stops: StopScanner,
    /// Every token is an event, even if it shows no text (`return_token_ids`).
    every_token: bool,
    token_ids: Vec<u32>,
    ended: bool,
}

/// Looks for stop strings in a stream of text, holding back what could be the beginning of one.
#[derive(Debug, Default)]
struct StopScanner {
    stops: Vec<String>,
    include: bool,
    held: String,
}

// === impl Generation ===

impl Generation {
    /// Submits `n` choices of every prompt. On refusal those already submitted are aborted.
    pub(super) fn start(
        driver: &Driver,
        tokenizer: &Arc<Tokenizer>,
        sampling: &Sampling,
        prompts: Vec<(Vec<u32>, usize)>,
    ) -> Result<Self, Busy> {
        let mut choices = Vec::new();
        let mut kept = Vec::new();
        for (tokens, max_tokens) in prompts {
            for repeat in 0..sampling.n {
                let noise = match sampling.prompt.noise {
                    0 => 0,
                    seed => seed.wrapping_add(repeat as u64),
                };
                let tokens = tokens.clone();
                let prompt = Prompt { tokens, max_tokens, noise, ..sampling.prompt.clone() };
                let ticket = driver.submit(prompt)?;
                choices.push(Choice {
                    index: choices.len(),
                    ticket,
                    tokenizer: tokenizer.clone(),
                    text: TextStream::new(),
                    stops: StopScanner {
                        stops: sampling.stop.clone(),
                        include: sampling.include_stop,
                        held: String::new(),
                    },
                    every_token: sampling.return_token_ids,
                    token_ids: Vec::new(),
                    ended: false,
                });
            }
            kept.push(Arc::from(tokens));
        }
        let prompt_tokens = kept.iter().map(|tokens: &Arc<[u32]>| tokens.len()).sum();
        let events = stream::select_all(choices.into_iter().map(Choice::into_events)).boxed();
        Ok(Self { events, prompt_tokens, prompts: kept, n: sampling.n })
    }
}

// === impl Choice ===

impl Choice {
    fn into_events(self) -> BoxStream<'static, Event> {
        stream::unfold(self, |mut choice| async move {
            let event = choice.next().await?;
            Some((event, choice))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Event> {
        while !self.ended {
            let Some(output) = self.ticket.next().await else {
                return Some(self.event(String::new(), 0, Some(End::Dead)));
            };
            self.token_ids.extend(output.token);
            let (mut text, mut end) = match (output.token, output.finish) {
                // The end token itself is not shown.
                (_, Some(Finish::End)) => (self.flush(), Some(End::Model)),
                (_, Some(Finish::StopToken(token))) => (self.flush(), Some(End::Token(token))),
                (None, _) => (String::new(), Some(End::Length)),
                (Some(token), finish) => {
                    let mut text = self.text.push(&self.tokenizer, token).unwrap_or_default();
                    if finish.is_some() {
                        text.push_str(&self.flush());
                    }
                    (text, finish.map(|_| End::Length))
                }
            };
            if let Some(stop) = self.stops.scan(&mut text, end.is_some()) {
                end = Some(End::Text(stop));
                self.ticket.stop();
            }
            if end.is_some() || !text.is_empty() || self.every_token {
                return Some(self.event(text, output.cached_tokens, end));
            }
        }
        None
    }

    fn flush(&mut self) -> String {
        self.text.finish(&self.tokenizer).unwrap_or_default()
    }

    fn event(&mut self, text: String, cached_tokens: usize, end: Option<End>) -> Event {
        self.ended = end.is_some();
        let token_ids = std::mem::take(&mut self.token_ids);
        Event { choice: self.index, text, token_ids, cached_tokens, end }
    }
}

// === impl StopScanner ===

impl StopScanner {
    /// Passes `text` through; what may be the beginning of a stop string is held back unless this
    /// is the `last` text. Returns the stop string that was found; the text then ends before it
    /// (or after it, if asked).
    fn scan(&mut self, text: &mut String, last: bool) -> Option<String> {
        let longest = self.stops.iter().map(String::len).max()?;
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop))).min();
        if let Some((at, stop)) = first {
            let stop = stop.clone();
            self.held.truncate(if self.include { at + stop.len() } else { at });
            *text = std::mem::take(&mut self.held);
            return Some(stop);
        }
        let keep = if last { 0 } else { longest - 1 };
        let mut cut = self.held.len().saturating_sub(keep);
        while !self.held.is_char_boundary(cut) {
            cut -= 1;
        }
        *text = self.held.drain(..cut).collect();
        None
    }
}

// === impl End ===

impl End {
    /// `finish_reason` of chat and completions.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Model | Self::Token(_) | Self::Text(_) => "stop",
            Self::Length => "length",
            Self::Dead => "error",
        }
    }

    /// `stop_reason`: which stop it was.
    pub(super) fn stop_reason(&self) -> serde_json::Value {
        match self {
            Self::Token(id) => (*id).into(),
            Self::Text(stop) => stop.as_str().into(),
            _ => serde_json::Value::Null,
        }
    }
}

#[cfg(test)]
mod tests;
