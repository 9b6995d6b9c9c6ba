//! What a client's stream looks like, as the request asks for it.

use serde_json::Value;

use super::Api;
use super::members::Members;
use super::request::flag;
use super::tree::may_be_built;

/// What the client asked for, as far as its stream shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamFormat {
    /// The API.
    pub api: Api,
    /// Choices that the stream carries.
    pub choices: u32,
    /// The client wants `usage` at the end.
    pub wants_usage: bool,
    /// The client wants ids (`return_token_ids`).
    pub wants_ids: bool,
    /// The pod was asked for ids, by us or by the client: what is needed to go on.
    pub has_ids: bool,
}

// === impl StreamFormat ===

impl StreamFormat {
    /// As a body asks for it; the pod is not asked for ids yet. None: the client wants no stream.
    pub(super) fn read(api: Api, members: &Members<'_>) -> Option<Self> {
        let number = |members: &Members<'_>| members.last("n").and_then(|n| n.parse().ok());
        let params = || Members::read(members.last("sampling_params")?).ok();
        flag(members, "stream", false).then(|| Self {
            api,
            choices: match api {
                Api::Generate => params().as_ref().and_then(number),
                _ => number(members),
            }
            .unwrap_or(1),
            wants_usage: members
                .last("stream_options")
                .filter(|options| may_be_built([*options].into_iter()))
                .and_then(|options| serde_json::from_str::<Value>(options).ok())
                .is_some_and(|options| options["include_usage"] == true),
            wants_ids: flag(members, "return_token_ids", false),
            has_ids: false,
        })
    }
}
