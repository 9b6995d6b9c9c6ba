//! Where one pod's part of an answer ends and the next one's begins.

use super::resumption::{Cannot, Next, ResumeParams, Resumption};
use super::rewrite::Choice;
use super::stops::Stops;
use super::stream::{Record, Stream};
use crate::openai::Api;
use crate::tokenize::Tokenizer;

/// What is known of the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Model<'a> {
    /// Its tokenizer, if there is one.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Longest prompt plus answer in tokens.
    pub max_len: Option<u32>,
}

/// The beginning of the part that a later pod makes.
#[derive(Debug)]
pub(super) struct Seam {
    /// Ids of the prompt.
    pub(super) prompt: usize,
    /// Ids of the answer that came before it.
    pub(super) kept: usize,
    /// Ids of the answer since.
    pub(super) made: usize,
    /// Text of these ids that has not gone out.
    lag: String,
    stops: Option<Stops>,
}

/// Ids of the prompt that are decoded with the answer, since a decoder may treat the first id
/// differently.
const CONTEXT: usize = 8;

/// Ids that may have to be dropped: a character is at most 4 bytes, and so 4 ids.
const MOST_DROPPED: usize = 4;

// === impl Seam ===

impl Seam {
    /// The text of a later pod's event as the client gets it, and the stop string that ends it.
    pub(super) fn text(&mut self, choice: &Choice<'_>) -> (String, Option<String>) {
        let mut text = std::mem::take(&mut self.lag);
        text.push_str(&choice.text);
        let Some(stops) = &mut self.stops else { return (text, None) };
        let (mut text, stopped) = stops.push(&text);
        if stopped.is_none() && choice.finish_reason.is_some() {
            text.push_str(&stops.finish());
        }
        (text, stopped)
    }
}

// === impl Stream ===

impl Stream {
    /// What is to be done now that the pod's stream has ended without being whole; `body` is the
    /// client's request. Whatever the answer, the stream is ready for it.
    pub fn resume(&mut self, body: &[u8], model: Model<'_>) -> Next {
        if self.is_finished()
            && let Some(end) = self.rest()
        {
            self.progress.done = true;
            return Next::Over(end);
        }
        match self.next_leg(body, model) {
            Ok(next) => next,
            Err(why) => {
                self.lose(why);
                Next::Cannot(why)
            }
        }
    }

    /// Whether another pod could go on from here, or the answer is whole but for its end.
    #[must_use]
    pub fn can_go_on(&self, body: &[u8], model: Model<'_>) -> bool {
        let has_ids = !self.record.prompt.is_empty() && self.record.head.is_some();
        let is_whole = self.is_finished();
        let cut = || -> Result<_, Cannot> {
            let params = ResumeParams::read(self.format.api, body)?;
            cut(&self.record, &params, self.format.wants_ids, model.tokenizer)
        };
        is_whole || (self.lost.is_none() && has_ids && cut().is_ok())
    }

    fn next_leg(&mut self, body: &[u8], model: Model<'_>) -> Result<Next, Cannot> {
        if let Some(why) = self.lost {
            return Err(why);
        }
        if self.record.prompt.is_empty() || self.record.head.is_none() {
            return Err(Cannot::NoIds);
        }
        let params = ResumeParams::read(self.format.api, body)?;
        let is_full = params.max_tokens.is_some_and(|max| self.record.ids.len() >= max);
        if is_full && params.stops.is_empty() {
            return Ok(Next::Over(self.end_by_length("")));
        }
        let (kept, lag) = cut(&self.record, &params, self.format.wants_ids, model.tokenizer)?;
        if is_full {
            return Ok(Next::Over(self.end_by_length(&lag)));
        }
        if kept < self.record.ids.len() {
            // The next pod makes these ids anew.
            self.held.clear();
        }
        self.record.ids.truncate(kept);
        self.record.settled = self.record.settled.min(kept);
        let stops = (!params.stops.is_empty())
            .then(|| Stops::after(&self.record.text, &params.stops, params.includes_stop));
        self.seam = Some(Seam { prompt: self.record.prompt.len(), kept, made: 0, lag, stops });
        self.turn();
        let tokens = [&self.record.prompt[..], &self.record.ids[..]].concat();
        let body = params.body(&tokens, kept, model.max_len);
        Ok(Next::Pod(Resumption { tokens, body, cache_salt: params.cache_salt }))
    }

    /// What is missing of an answer whose every choice has come to its end; none if only the pod
    /// knows.
    fn rest(&self) -> Option<Vec<u8>> {
        let mut rest = self.held.clone();
        match self.format.api {
            Api::Chat | Api::Completions => {
                if self.format.wants_usage && !self.progress.usage_told {
                    let (prompt, answer) = self.counts()?;
                    self.record.head.as_ref()?.own_usage(prompt, answer, &mut rest);
                }
                rest.extend_from_slice(b"data: [DONE]\n\n");
            }
            Api::Messages => rest
                .extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
            Api::Generate if !self.format.wants_usage => {
                rest.extend_from_slice(b"data: [DONE]\n\n");
            }
            _ => return None,
        }
        Some(rest)
    }

    /// Ids of the prompt and of the answer; none if not all of them were seen.
    fn counts(&self) -> Option<(usize, usize)> {
        match (&self.seam, self.lost) {
            (Some(seam), None | Some(Cannot::TooLong)) => {
                Some((seam.prompt, seam.kept + seam.made))
            }
            (None, None) => Some((self.record.prompt.len(), self.record.ids.len())),
            _ => None,
        }
    }

    /// Ends the stream for the pod.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(rest) = self.rest() {
            self.held.clear();
            out.extend_from_slice(&rest);
            (self.progress.done, self.progress.is_ours) = (true, true);
        }
    }

    /// All tokens that the client asked for are here; only the word for it is missing.
    fn end_by_length(&mut self, lag: &str) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.held);
        if let Some(head) = &self.record.head {
            head.last(self.format.wants_ids, lag, &mut out);
        }
        self.progress.finishes += 1;
        self.end(&mut out);
        out
    }
}

/// How many ids of the answer the next pod goes on from, and the text of theirs that has not gone
/// out.
///
/// Ids that end inside a character must not be the end of a prompt: vLLM answers with the text of the
/// whole prompt then, the system prompt included (its issue 48853).
fn cut(
    record: &Record,
    params: &ResumeParams,
    wants_ids: bool,
    tokenizer: Option<&Tokenizer>,
) -> Result<(usize, String), Cannot> {
    let Some(tokenizer) = tokenizer else {
        // An event of one id with text ends where a character ends; with more ids, or with text held
        // back for a stop string, only a decoder can tell.
        let is_clear = params.stops.is_empty() && (record.is_single || record.ids.is_empty());
        return if is_clear {
            Ok((record.settled, String::new()))
        } else {
            Err(Cannot::NoTokenizer)
        };
    };
    let context = &record.prompt[record.prompt.len().saturating_sub(CONTEXT)..];
    let decode = |ids: &[u32]| {
        let text = match params.shows_specials {
            true => tokenizer.decode(ids),
            false => tokenizer.decode_visible(ids),
        };
        text.map_err(|_broken| Cannot::Seam)
    };
    let before = decode(context)?;
    if before.ends_with('\u{fffd}') && record.ids.is_empty() {
        return Err(Cannot::Seam);
    }
    // What went out, and then, where the client does not see ids, a few less.
    let fewest = record.settled.saturating_sub(if wants_ids { 0 } else { MOST_DROPPED });
    let may_lag = !params.stops.is_empty();
    let most = if may_lag { record.ids.len() } else { record.settled };
    for kept in (fewest..=most).rev() {
        let all = decode(&[context, &record.ids[..kept]].concat())?;
        let Some(text) = all.strip_prefix(before.as_str()) else { continue };
        let Some(lag) = text.strip_prefix(record.text.as_str()) else { continue };
        if !text.ends_with('\u{fffd}') && (may_lag || lag.is_empty()) {
            return Ok((kept, lag.to_owned()));
        }
    }
    Err(Cannot::Seam)
}
