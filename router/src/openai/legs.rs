//! The bodies of the two legs of a split request, made of the client's own bytes.
//!
//! Both legs have to mean the same prompt to the token: a decode pod reads whatever blocks it is told
//! to read. So whatever a chat template may look at stays, `tools`, `tool_choice` and
//! `response_format` among them (vLLM's renderers for Kimi K3 and Cohere read the last one). What is
//! replaced in the prefill leg is how many tokens are sampled, and how they are sent.

use bytes::{BufMut, Bytes, BytesMut};

use super::Api;
use super::guard::{cut, without};
use super::members::Members;
use super::scan::BadJson;

/// A member that a leg gets: its key, and its value as JSON.
pub type Member = (&'static str, String);

/// Members that say how many tokens are sampled and what is sent of them. `stop` goes too: an answer
/// that a stop string ends is aborted, and an aborted prefill hands nothing over.
const SAMPLING: [&str; 15] = [
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "min_tokens",
    "n",
    "best_of",
    "use_beam_search",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "stream",
    "stream_options",
    "stop",
    "stop_sequences",
    // Ours, for a stream that may move, or the client's: of a prefill all ids of the prompt come back.
    "return_token_ids",
];

/// Where `/inference/v1/generate` has them.
const SAMPLING_PARAMS: &str = "sampling_params";

/// Why a request must be computed by one pod alone; none: it may be split.
///
/// Several sequences would each read the same remote blocks, which the prefill pod frees after the
/// first; log probabilities of the prompt need the prompt computed where they are told.
pub(super) fn indivisible(api: Api, members: &Members<'_>) -> Option<&'static str> {
    if api == Api::Generate {
        // All that counts stands in there.
        let params = Members::read(members.last(SAMPLING_PARAMS).unwrap_or("{}"));
        return params.ok().and_then(|params| one_pod_alone(api, &params));
    }
    one_pod_alone(api, members)
}

fn one_pod_alone(api: Api, members: &Members<'_>) -> Option<&'static str> {
    let value = |key| members.last(key).filter(|value| !matches!(*value, "null" | "false"));
    let more_than_one = |key| value(key).is_some_and(|n| n != "1");
    let is_short = |key| value(key).is_some_and(|n| matches!(n, "0" | "1"));
    if !api.fills_cache() || matches!(api, Api::GenerativeScoring | Api::Decide) {
        return Some("api");
    }
    if api == Api::Batch {
        return Some("batch");
    }
    if more_than_one("n") || more_than_one("best_of") || value("use_beam_search").is_some() {
        return Some("sequences");
    }
    if value("prompt_logprobs").is_some() || value("echo").is_some() {
        return Some("prompt_logprobs");
    }
    if ["max_tokens", "max_completion_tokens", "max_output_tokens"].into_iter().any(is_short) {
        return Some("one_token");
    }
    if ["background", "previous_response_id"].into_iter().any(|key| value(key).is_some()) {
        return Some("stored");
    }
    let is_batch = value("prompt").is_some_and(|prompt| {
        prompt.strip_prefix('[').is_some_and(|list| list.trim_start().starts_with(['[', '"']))
    });
    (is_batch || value("prompt_embeds").is_some()).then_some("batch")
}

/// The body of a leg that samples one token and answers at once, with these members added.
///
/// # Errors
/// A body that is not one JSON object.
pub fn prefill_leg(api: Api, body: &Bytes, more: &[Member]) -> Result<Bytes, BadJson> {
    let is_sampling = |key: &str| SAMPLING.contains(&key);
    let mut added = one_token(api, body)?;
    added.extend_from_slice(more);
    with_members(body, is_sampling, &added)
}

/// The client's body with these members added, in place of what it has of them.
///
/// # Errors
/// A body that is not one JSON object.
pub fn with(body: &Bytes, more: &[Member]) -> Result<Bytes, BadJson> {
    with_members(body, |_| false, more)
}

/// What makes a request sample one token, whatever the API calls it, and send it whole. At least one
/// is asked for where that can be said, since an answer without a token hands nothing over.
fn one_token(api: Api, body: &Bytes) -> Result<Vec<Member>, BadJson> {
    let limits: &[&str] = match api {
        Api::Responses => &["max_output_tokens"],
        Api::Messages => &["max_tokens"],
        Api::Completions => &["max_tokens", "min_tokens"],
        _ => &["max_tokens", "max_completion_tokens", "min_tokens"],
    };
    let mut members: Vec<Member> = vec![("stream", "false".to_owned())];
    if api == Api::Generate {
        members.push((SAMPLING_PARAMS, params_of_one_token(body)?));
        return Ok(members);
    }
    members.extend(limits.iter().map(|key| (*key, "1".to_owned())));
    if api == Api::Responses {
        members.push(("store", "false".to_owned()));
    }
    Ok(members)
}

fn params_of_one_token(body: &Bytes) -> Result<String, BadJson> {
    let text = std::str::from_utf8(body).map_err(|_not_utf8| BadJson::not_utf8())?;
    let members = Members::read(text)?;
    let params = members.last(SAMPLING_PARAMS).unwrap_or("{}");
    let params = Bytes::copy_from_slice(params.as_bytes());
    let limits = ["max_tokens", "min_tokens"].map(|key| (key, "1".to_owned()));
    let capped = with_members(&params, |key| SAMPLING.contains(&key), &limits)?;
    Ok(String::from_utf8_lossy(&capped).into_owned())
}

fn with_members(
    body: &Bytes,
    is_cut: impl Fn(&str) -> bool,
    added: &[Member],
) -> Result<Bytes, BadJson> {
    let text = std::str::from_utf8(body).map_err(|_not_utf8| BadJson::not_utf8())?;
    let members = Members::read(text)?;
    let is_cut = |key: &str| is_cut(key) || added.iter().any(|(name, _)| *name == key);
    let is_empty = members.0.iter().all(|member| is_cut(&member.key));
    let spans = cut(text, text, &members, is_cut);
    let rest = without(body, &spans);
    let end = memchr::memrchr(b'}', &rest).unwrap_or(rest.len());
    let more: usize = added.iter().map(|(key, value)| key.len() + value.len() + 4).sum();
    let mut whole = BytesMut::with_capacity(rest.len() + more);
    whole.put_slice(&rest[..end]);
    for (index, (key, value)) in added.iter().enumerate() {
        if index > 0 || !is_empty {
            whole.put_u8(b',');
        }
        whole.put_u8(b'"');
        whole.put_slice(key.as_bytes());
        whole.put_slice(b"\":");
        whole.put_slice(value.as_bytes());
    }
    whole.put_slice(&rest[end..]);
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(api: Api, body: &'static str) -> String {
        let more = [("kv_transfer_params", "{}".to_owned())];
        let leg = prefill_leg(api, &Bytes::from_static(body.as_bytes()), &more).unwrap();
        String::from_utf8(leg.to_vec()).unwrap()
    }

    #[test]
    fn a_prefill_leg_samples_one_token_in_every_api() {
        for (api, body, want) in [
            (
                Api::Chat,
                r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true},"max_tokens":200,"min_tokens":9,"n":1,"logprobs":true,"top_logprobs":5,"stop":["x"],"seed":9007199254740993,"return_token_ids":true}"#,
                r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"seed":9007199254740993,"stream":false,"max_tokens":1,"max_completion_tokens":1,"min_tokens":1,"kv_transfer_params":{}}"#,
            ),
            (
                Api::Chat,
                r#"{"max_completion_tokens":7 , "messages":[],"tools":[{"a":1}],"tool_choice":"required","response_format":{"type":"json_object"}}"#,
                r#"{ "messages":[],"tools":[{"a":1}],"tool_choice":"required","response_format":{"type":"json_object"},"stream":false,"max_tokens":1,"max_completion_tokens":1,"min_tokens":1,"kv_transfer_params":{}}"#,
            ),
            (
                Api::Completions,
                r#"{"prompt":"a","best_of":1,"max_tokens":null}"#,
                r#"{"prompt":"a","stream":false,"max_tokens":1,"min_tokens":1,"kv_transfer_params":{}}"#,
            ),
            (
                Api::Responses,
                r#"{"input":"a","max_output_tokens":90,"store":true}"#,
                r#"{"input":"a","stream":false,"max_output_tokens":1,"store":false,"kv_transfer_params":{}}"#,
            ),
            (
                Api::Messages,
                "{\"messages\":[],\"max_tokens\":90,\"stop_sequences\":[\"}\"]}\n",
                "{\"messages\":[],\"stream\":false,\"max_tokens\":1,\"kv_transfer_params\":{}}\n",
            ),
            (
                Api::Generate,
                r#"{"token_ids":[1,2],"sampling_params":{"max_tokens":90,"temperature":0,"stop":["x"],"n":1},"stream":true}"#,
                r#"{"token_ids":[1,2],"stream":false,"sampling_params":{"temperature":0,"max_tokens":1,"min_tokens":1},"kv_transfer_params":{}}"#,
            ),
            (
                Api::Generate,
                r#"{"token_ids":[1]}"#,
                r#"{"token_ids":[1],"stream":false,"sampling_params":{"max_tokens":1,"min_tokens":1},"kv_transfer_params":{}}"#,
            ),
            (Api::Messages, "{}", r#"{"stream":false,"max_tokens":1,"kv_transfer_params":{}}"#),
        ] {
            assert_eq!(leg(api, body), want, "{api:?}: {body}");
        }
    }

    #[test]
    fn a_decode_leg_is_the_clients_own_bytes_and_what_was_handed_over() {
        let body = r#"{ "prompt" : "}" , "seed":1e400,"a":1 , "kv_transfer_params":7 } "#;
        let more = [("kv_transfer_params", r#"{"remote_block_ids":[[1, 2]]}"#.to_owned())];
        let leg = with(&Bytes::from_static(body.as_bytes()), &more).unwrap();
        let want = r#"{ "prompt" : "}" , "seed":1e400,"a":1 ,"kv_transfer_params":{"remote_block_ids":[[1, 2]]}} "#;
        assert_eq!(leg, want.as_bytes());
    }

    #[test]
    fn what_one_pod_has_to_compute_alone_is_not_split() {
        for (api, body, want) in [
            (Api::Chat, r#"{"n":1,"messages":[],"logprobs":true}"#, None),
            (Api::Chat, r#"{"n":2}"#, Some("sequences")),
            (Api::Completions, r#"{"prompt":"a","best_of":3}"#, Some("sequences")),
            (Api::Completions, r#"{"prompt":"a","use_beam_search":false}"#, None),
            (Api::Completions, r#"{"prompt":[1,2]}"#, None),
            (Api::Completions, r#"{"prompt":["a","b"]}"#, Some("batch")),
            (Api::Completions, r#"{"prompt":[ [1],[2]]}"#, Some("batch")),
            (Api::Completions, r#"{"prompt":"a","echo":true}"#, Some("prompt_logprobs")),
            (Api::Chat, r#"{"prompt_logprobs":0}"#, Some("prompt_logprobs")),
            (Api::Chat, r#"{"max_completion_tokens":1}"#, Some("one_token")),
            (Api::Responses, r#"{"input":"a","background":true}"#, Some("stored")),
            (Api::Embeddings, r#"{"input":"a"}"#, Some("api")),
            (Api::GenerativeScoring, r#"{"query":"a"}"#, Some("api")),
            (Api::Batch, r#"{"messages":[[],[]]}"#, Some("batch")),
            (Api::Generate, r#"{"token_ids":[1],"sampling_params":{"max_tokens":9}}"#, None),
            (Api::Generate, r#"{"sampling_params":{"n":2}}"#, Some("sequences")),
            (Api::Generate, r#"{"sampling_params":{"max_tokens":1}}"#, Some("one_token")),
        ] {
            assert_eq!(indivisible(api, &Members::read(body).unwrap()), want, "{body}");
        }
    }
}
