//! From tickets to the events that every API shape is written from.

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use router::tokenize::{TextStream, Tokenizer};

use super::{
    body::Sampling,
    driver::Ticket,
    engine::Busy,
    errors::ApiError,
    fault::{Break, Faults},
    pod::Pod,
    sequence::{Finish, Prompt, Siblings},
    transfer::Transfer,
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
    /// It failed, and the engine lives.
    Failed,
    /// The response ends here, as if it were whole.
    Closed,
    /// The connection ends here.
    Cut,
}

/// One character is at most 4 bytes and so at most 4 byte-level ids.
const MAX_CHARACTER_IDS: usize = 4;

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
    /// The ids of a prompt that ends inside a character, until that is complete.
    unfinished: Option<Vec<u32>>,
    faults: Faults,
    /// After how many tokens it breaks (none: after the last), and how.
    breaks: Option<(Option<usize>, Break)>,
    taken: usize,
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
        pod: &Arc<Pod>,
        sampling: &Sampling,
        transfer: &Transfer,
        prompts: Vec<(Vec<u32>, usize)>,
    ) -> Result<Self, ApiError> {
        let mut choices = Vec::new();
        let mut kept = Vec::new();
        let min_tokens = sampling.prompt.min_tokens;
        for (tokens, max_tokens) in prompts {
            if min_tokens > max_tokens {
                return Err(ApiError::bad(format!(
                    "min_tokens must be less than or equal to max_tokens={max_tokens}, got \
                     {min_tokens}."
                )));
            }
            let siblings = Some(Arc::new(Siblings::new(sampling.n)));
            for repeat in 0..sampling.n {
                let noise = match sampling.prompt.noise {
                    0 => 0,
                    seed => seed.wrapping_add(repeat as u64),
                };
                let hold = transfer.hold.clone();
                let prompt = Prompt {
                    tokens: tokens.clone(),
                    max_tokens,
                    noise,
                    siblings: siblings.clone(),
                    hold,
                    ..sampling.prompt.clone()
                };
                let ticket = ticket(pod, transfer, prompt)?;
                choices.push(Choice::new(pod, sampling, ticket, choices.len(), &tokens));
            }
            kept.push(Arc::from(tokens));
        }
        let prompt_tokens = kept.iter().map(|tokens: &Arc<[u32]>| tokens.len()).sum();
        let events = stream::select_all(choices.into_iter().map(Choice::into_events)).boxed();
        Ok(Self { events, prompt_tokens, prompts: kept, n: sampling.n })
    }
}

/// Queues a request, behind the read of its KV if that is elsewhere.
fn ticket(pod: &Arc<Pod>, transfer: &Transfer, prompt: Prompt) -> Result<Ticket, Busy> {
    match transfer.reading(pod, prompt.tokens.len()) {
        Some(reading) => pod.driver.submit_after(reading, prompt),
        None => pod.driver.submit(prompt),
    }
}

// === impl Choice ===

impl Choice {
    fn new(pod: &Pod, sampling: &Sampling, ticket: Ticket, index: usize, prompt: &[u32]) -> Self {
        let end = &prompt[prompt.len().saturating_sub(MAX_CHARACTER_IDS)..];
        let is_unfinished = pod.tokenizer.decode(end).is_ok_and(|end| end.ends_with('\u{fffd}'));
        Self {
            index,
            ticket,
            tokenizer: pod.tokenizer.clone(),
            text: TextStream::new(),
            stops: StopScanner {
                stops: sampling.stop.clone(),
                include: sampling.include_stop,
                held: String::new(),
            },
            every_token: sampling.return_token_ids,
            unfinished: is_unfinished.then(|| prompt.to_vec()),
            faults: pod.faults.clone(),
            breaks: pod.faults.meet_generation(),
            taken: 0,
            token_ids: Vec::new(),
            ended: false,
        }
    }

    fn into_events(self) -> BoxStream<'static, Event> {
        stream::unfold(self, |mut choice| async move {
            let event = choice.next().await?;
            Some((event, choice))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Event> {
        if let Some(end) = self.broken().await {
            return Some(self.event(String::new(), 0, Some(end)));
        }
        while !self.ended {
            let Some(output) = self.ticket.next().await else {
                let end = if self.ticket.has_no_kv() { End::Failed } else { End::Dead };
                return Some(self.event(String::new(), 0, Some(end)));
            };
            self.taken += 1;
            self.token_ids.extend(output.token);
            let (mut text, mut end) = match (output.token, output.finish) {
                // The end token itself is not shown.
                (_, Some(Finish::End)) => (self.flush(), Some(End::Model)),
                (_, Some(Finish::StopToken(token))) => (self.flush(), Some(End::Token(token))),
                (None, _) => (String::new(), Some(End::Length)),
                (Some(token), finish) => {
                    let mut text = self.push(token);
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
            let is_due = self.breaks.is_some_and(|(after, _)| after == Some(self.taken));
            if end.is_some() || !text.is_empty() || self.every_token || is_due {
                return Some(self.event(text, output.cached_tokens, end));
            }
        }
        None
    }

    /// If it is to break here, how the response ends. What was said before has left the pod then.
    async fn broken(&mut self) -> Option<End> {
        let is_here = |after: Option<usize>| match after {
            Some(after) => after == self.taken && !self.ended,
            None => self.ended,
        };
        let (_, how) = self.breaks.take_if(|(after, _)| is_here(*after))?;
        tokio::task::yield_now().await;
        if let Some(fault) = how.of_pod() {
            self.faults.set(Some(fault));
        }
        match how {
            Break::ErrorEvent => Some(End::Failed),
            Break::Close => Some(End::Closed),
            Break::Cut => Some(End::Cut),
            Break::Stall => std::future::pending().await,
            Break::Down | Break::Freeze | Break::EngineDeath | Break::Pause => None,
        }
    }

    /// The text that a token completes. A prompt that ends inside a character comes out with it as
    /// a whole, system prompt and all: so does vLLM's detokenizer, which a gateway must not meet.
    fn push(&mut self, token: u32) -> String {
        let Some(ids) = &mut self.unfinished else {
            return self.text.push(&self.tokenizer, token).unwrap_or_default();
        };
        ids.push(token);
        let text = self.tokenizer.decode_visible(ids).unwrap_or_default();
        if text.ends_with('\u{fffd}') {
            return String::new();
        }
        self.unfinished = None;
        text
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
            Self::Dead | Self::Failed | Self::Closed | Self::Cut => "error",
        }
    }

    /// What an answer without streaming is instead, if this is no good end.
    pub(super) fn error(&self) -> Option<ApiError> {
        match self {
            Self::Dead => Some(ApiError::engine_dead()),
            Self::Failed => Some(ApiError::internal()),
            Self::Closed | Self::Cut => Some(ApiError::cut()),
            Self::Model | Self::Token(_) | Self::Text(_) | Self::Length => None,
        }
    }

    /// The end of a choice that must have come to a good one.
    pub(super) fn good(end: Option<Self>) -> Result<Self, ApiError> {
        let end = end.ok_or_else(ApiError::engine_dead)?;
        end.error().map_or(Ok(end), Err)
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
