//! How answers say that they are over: whole, or given up.
//!
//! Streams of messages and responses carry no ids, so no other pod can go on with one (nor, yet, with
//! one of bare ids): all that is looked for is how it ends.

use super::splice;
use super::stream::Progress;
use crate::openai::Api;

/// Whether a pod ends an answer, in an event, because it gave it up: vLLM does so to every stream when
/// it gets SIGTERM (0.26, observed), and to none whose client stays otherwise.
pub(super) fn says_aborted(api: Api, event: &[u8]) -> bool {
    match api {
        // vLLM has no word of Anthropic's for it, and says none.
        Api::Messages => splice::has(event, b"\"delta\":{\"stop_reason\":null"),
        _ => gave_up(api, event),
    }
}

/// The same of a plain answer.
#[must_use]
pub fn is_aborted(api: Api, json: &[u8]) -> bool {
    match api {
        // A message whose `stop_reason` is none is written without one.
        Api::Messages => {
            splice::has(json, b"\"type\":\"message\"") && !splice::has(json, b"\"stop_reason\":\"")
        }
        _ => gave_up(api, json),
    }
}

fn gave_up(api: Api, json: &[u8]) -> bool {
    match api {
        Api::Responses => splice::has(json, b"\"status\":\"cancelled\""),
        _ => splice::has(json, b"\"finish_reason\":\"abort\""),
    }
}

/// Whether an event says that the answer has failed, other than by an error of its own.
pub(super) fn says_failed(api: Api, event: &[u8]) -> bool {
    api == Api::Responses && splice::has(event, b"\"type\":\"response.failed\"")
}

// === impl Progress ===

impl Progress {
    /// An event of another API than chats and completions.
    pub(super) fn sees_other(&mut self, api: Api, event: &[u8]) {
        self.has_token = self.has_token || splice::shows_answer(api, event);
        let type_is = |kind: &[u8]| splice::has(event, kind);
        match api {
            Api::Messages => {
                self.finishes += u32::from(type_is(b"\"stop_reason\":\""));
                self.done |= type_is(b"\"type\":\"message_stop\"");
            }
            Api::Responses => {
                self.done |= type_is(b"\"type\":\"response.completed\"")
                    || type_is(b"\"type\":\"response.incomplete\"");
            }
            Api::Generate => self.finishes += u32::from(type_is(b"\"finish_reason\":\"")),
            _ => {}
        }
    }
}
