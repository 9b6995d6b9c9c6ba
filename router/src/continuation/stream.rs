//! The state machine: pods' bytes in, the client's bytes out.

use std::ops::Range;

use super::ending;
use super::resumption::Cannot;
use super::rewrite::{Chunk, Head, Said, Usage, error_of};
use super::seam::Seam;
use super::splice;
use crate::openai::{Api, StreamFormat};
use crate::sse::{Lines, Piece};

/// One answer on its way to the client.
#[derive(Debug)]
pub struct Stream {
    pub(super) format: StreamFormat,
    lines: Lines,
    /// The lines so far of an event that is not whole yet.
    partial: Vec<u8>,
    /// Its events are too long to be looked into: bytes go through as they come.
    raw: bool,
    pub(super) record: Record,
    /// Events since the last one with text: they go out with the next, so that ids which end inside a
    /// character never went out.
    pub(super) held: Vec<u8>,
    pub(super) progress: Progress,
    pub(super) lost: Option<Cannot>,
    pub(super) seam: Option<Seam>,
}

/// What is remembered of an answer.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) head: Option<Head>,
    pub(super) prompt: Vec<u32>,
    /// Ids of the answer.
    pub(super) ids: Vec<u32>,
    /// Of these, those whose events went out.
    pub(super) settled: usize,
    /// The last event that went out had one id.
    pub(super) is_single: bool,
    /// The text that went out.
    pub(super) text: String,
}

/// How far the answer has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) has_token: bool,
    pub(super) finishes: u32,
    pub(super) usage_told: bool,
    pub(super) done: bool,
    /// We ended it: the pod does not know that.
    pub(super) is_ours: bool,
    /// The error event with which the pod ended it.
    pub(super) error: Option<Vec<u8>>,
    /// The pod gave it up.
    pub(super) is_aborted: bool,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Nothing of the answer has come: it can begin anew at another pod.
    Nothing,
    /// The answer is on its way.
    Text,
    /// The answer is whole: what the pod does now is of no interest.
    Done,
    /// The pod said that it failed.
    Failed,
}

/// Longer events go through without being looked into: this one holds the ids of half a million
/// prompt tokens.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// What is held back waits for text no longer than this.
const MAX_HELD_BYTES: usize = 64 << 10;

/// A longer answer (text, or ids) is not remembered.
const MAX_TEXT_BYTES: usize = 4 << 20;

// === impl Stream ===

impl Stream {
    /// An answer of which nothing has come.
    #[must_use]
    pub fn new(format: StreamFormat) -> Self {
        Self {
            format,
            lines: Lines::new(MAX_EVENT_BYTES),
            partial: Vec::new(),
            raw: false,
            record: Record::default(),
            held: Vec::new(),
            progress: Progress::default(),
            lost: (!format.has_ids).then_some(Cannot::NotAsked),
            seam: None,
        }
    }

    /// Takes a pod's bytes; appends what the client gets to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.raw {
            return out.extend_from_slice(bytes);
        }
        let mut lines = std::mem::replace(&mut self.lines, Lines::new(MAX_EVENT_BYTES));
        lines.cut(bytes, |piece| self.piece(piece, out));
        if self.raw {
            out.append(&mut lines.take_rest());
        }
        self.lines = lines;
    }

    /// Where the stream stands.
    #[must_use]
    pub fn state(&self) -> Writing {
        match &self.progress {
            Progress { done: true, .. } => Writing::Done,
            Progress { error: Some(_), .. } | Progress { is_aborted: true, .. } => Writing::Failed,
            Progress { has_token: true, .. } => Writing::Text,
            _ => Writing::Nothing,
        }
    }

    /// Whether we ended it while the pod would go on.
    #[must_use]
    pub fn is_ended_by_us(&self) -> bool {
        self.progress.is_ours
    }

    /// Whether a pod that closes now, however properly, leaves the answer without its end.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        let says_its_end = self.format.has_ids
            || matches!(self.format.api, Api::Messages | Api::Responses | Api::Generate);
        says_its_end && !self.raw && !self.progress.done
    }

    /// Whether every choice has come to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress.finishes >= self.format.choices
    }

    /// The pod's error event, if it sent one.
    #[must_use]
    pub fn error_event(&self) -> Option<&[u8]> {
        self.progress.error.as_deref()
    }

    /// Whether the stream stands in the middle of an event that went out in part.
    #[must_use]
    pub fn is_mid_event(&self) -> bool {
        self.raw
    }

    /// Why another pod could not go on, as far as the answer shows it.
    #[must_use]
    pub fn lost(&self) -> Option<Cannot> {
        self.lost
    }

    /// The answer cannot go on at another pod: nothing of it need be remembered.
    pub(super) fn lose(&mut self, why: Cannot) {
        self.lost.get_or_insert(why);
        self.record = Record { head: self.record.head.take(), ..Record::default() };
    }

    /// Forgets what the last pod left unfinished: another one speaks now.
    pub(super) fn turn(&mut self) {
        self.partial.clear();
        self.lines = Lines::new(MAX_EVENT_BYTES);
        (self.progress.error, self.progress.is_aborted) = (None, false);
    }

    /// Takes a line, and with an event's last one the event.
    fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        if matches!(self.state(), Writing::Done | Writing::Failed) {
            return;
        }
        let (Piece::Line(bytes) | Piece::Part(bytes)) = piece;
        if self.raw {
            return out.extend_from_slice(bytes);
        }
        self.partial.extend_from_slice(bytes);
        if matches!(bytes, b"\n" | b"\r\n") {
            let mut event = std::mem::take(&mut self.partial);
            self.event(&event, out);
            // The first event has the prompt's ids, and its memory is not kept for the others.
            if event.capacity() <= MAX_HELD_BYTES {
                event.clear();
                self.partial = event;
            }
        } else if matches!(piece, Piece::Part(_)) || self.partial.len() > MAX_EVENT_BYTES {
            self.raw = true;
            self.lose(Cannot::TooLong);
            self.progress.has_token = true;
            out.append(&mut self.held);
            out.append(&mut self.partial);
        }
    }

    fn event(&mut self, event: &[u8], out: &mut Vec<u8>) {
        let Some(data) = splice::data(event) else {
            // A comment, like a ping.
            return out.extend_from_slice(event);
        };
        if data == b"[DONE]" {
            self.progress.done = true;
            out.append(&mut self.held);
            return out.extend_from_slice(event);
        }
        if error_of(data) || ending::says_failed(self.format.api, data) {
            self.progress.error = Some(event.to_vec());
            return;
        }
        if ending::says_aborted(self.format.api, data) {
            self.progress.is_aborted = true;
            return;
        }
        match (self.format.api, &self.seam) {
            (Api::Chat | Api::Completions, None) => self.first_pods(event, out),
            (Api::Chat | Api::Completions, Some(_)) => self.later_pods(data, out),
            (api, _) => {
                self.progress.sees_other(api, event);
                out.extend_from_slice(event);
            }
        }
    }

    fn first_pods(&mut self, event: &[u8], out: &mut Vec<u8>) {
        let key: &[u8] =
            if self.format.api == Api::Chat { b"\"content\":\"" } else { b"\"text\":\"" };
        let text = splice::string(event, key);
        let shows = text.is_some_and(|text| !text.is_empty());
        let ends = splice::has(event, b"\"finish_reason\":\"");
        self.progress.sees(event, shows, ends);
        if self.record.head.is_none() {
            self.record.head = Head::read(event);
        }
        if !self.format.has_ids {
            return out.extend_from_slice(event);
        }
        let (new, lists) = self.remember(event, text);
        if new > 0 && text.is_none() && !ends && !self.format.wants_ids && is_forced(event) {
            return;
        }
        if new > 0 && !shows && !ends && self.lost.is_none() {
            splice::without_lists(event, lists, &mut self.held);
            self.hold_no_more_than_allowed(out);
        } else {
            out.append(&mut self.held);
            splice::without_lists(event, lists, out);
            self.settle(new);
        }
    }

    /// Remembers what an event says. Returns how many ids it has, and where the lists of ids stand
    /// that the client is not to see.
    fn remember(&mut self, event: &[u8], text: Option<&[u8]>) -> (usize, Vec<Range<usize>>) {
        let mut lists = Vec::new();
        let mut known = true;
        if self.record.prompt.is_empty()
            && let Some(list) = splice::list(event, b"\"prompt_token_ids\":[")
        {
            known &= splice::ids(&event[list.clone()], &mut self.record.prompt);
            lists.push(list);
        }
        let before = self.record.ids.len();
        if let Some(list) = splice::list(event, b"\"token_ids\":[") {
            known &= splice::ids(&event[list.clone()], &mut self.record.ids);
            lists.push(list);
        }
        let new = self.record.ids.len() - before;
        known &= text.is_none_or(|text| splice::meaning(text, &mut self.record.text));
        let shows = text.is_some_and(|text| !text.is_empty());
        if self.lost.is_some() || self.record.is_too_long() {
            self.lose(Cannot::TooLong);
        } else if new > 0 && text.is_none() {
            self.lose(Cannot::Parsed);
        } else if !known || (new == 0 && shows) {
            self.lose(Cannot::NoIds);
        }
        if self.format.wants_ids {
            lists.clear();
        }
        (new, lists)
    }

    fn later_pods(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.record.is_too_long() {
            self.lose(Cannot::TooLong);
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else {
            return self.lose(Cannot::NoIds);
        };
        let (Some(head), Some(seam)) = (&self.record.head, &mut self.seam) else { return };
        let base = Usage { prompt: seam.prompt, completion: seam.kept };
        let Some(choice) = chunk.choices.first() else {
            if chunk.usage.is_some() {
                self.progress.usage_told = true;
                head.usage(&chunk, base, out);
            }
            return;
        };
        let ids = choice.token_ids.as_deref().unwrap_or_default();
        seam.made += ids.len();
        let (text, stopped) = seam.text(choice);
        if self.lost.is_none() {
            self.record.ids.extend_from_slice(ids);
            self.record.text.push_str(&text);
        }
        let ends = choice.finish_reason.is_some() || stopped.is_some();
        let new = ids.len();
        let ids = self.format.wants_ids.then_some(ids);
        let said = Said { text: &text, stopped: stopped.as_deref(), ids };
        if new > 0 && text.is_empty() && !ends {
            head.chunk(&chunk, &said, base, &mut self.held);
            return self.hold_no_more_than_allowed(out);
        }
        out.append(&mut self.held);
        head.chunk(&chunk, &said, base, out);
        self.progress.finishes += u32::from(ends);
        self.settle(new);
        if stopped.is_some() {
            // The pod would go on: it has not seen what we saw.
            self.end(out);
        }
    }

    /// An event went out, and with it those that were held.
    fn settle(&mut self, new: usize) {
        self.record.settled = self.record.ids.len();
        if new > 0 {
            self.record.is_single = new == 1;
        }
    }

    fn hold_no_more_than_allowed(&mut self, out: &mut Vec<u8>) {
        if self.held.len() > MAX_HELD_BYTES {
            out.append(&mut self.held);
            self.record.settled = self.record.ids.len();
            self.record.is_single = false;
        }
    }
}

// === impl Record ===

impl Record {
    fn is_too_long(&self) -> bool {
        self.text.len().max(self.ids.len() * size_of::<u32>()) > MAX_TEXT_BYTES
    }
}

// === impl Progress ===

impl Progress {
    fn sees(&mut self, event: &[u8], shows: bool, ends: bool) {
        self.has_token = self.has_token
            || shows
            || ends
            || splice::shows_text(event)
            || splice::has(event, b"\"tool_calls\":[");
        self.finishes += u32::from(ends);
        self.usage_told |= !shows && splice::has(event, b"\"choices\":[],\"usage\":{");
    }
}

/// Whether the pod sent an event only because it was asked for ids: it shows nothing.
fn is_forced(event: &[u8]) -> bool {
    splice::has(event, b"\"delta\":{},\"logprobs\":null")
}
