//! Whether an engine looks into its prefix cache for a request, and tells what it found.

use super::Api;
use super::members::Members;
use super::request::first_of_list;

/// What a pod's cache is to a request, and what the answer tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheUse {
    /// It is read, and `cached_tokens` in the answer's `usage` is what was found.
    Told,
    /// It is read for several prompts; vLLM 0.32 tells what it found of the last one.
    Untold,
    /// It is not read: every token is computed.
    Unread,
}

// === impl CacheUse ===

impl CacheUse {
    pub(super) fn read(api: Api, members: &Members<'_>) -> Self {
        if !reads_cache(api, members) {
            return Self::Unread;
        }
        let prompts = members.last("prompt").filter(|_| api == Api::Completions);
        if prompts.is_some_and(are_several) { Self::Untold } else { Self::Told }
    }
}

/// Whether a list of prompts has more than one; the ids of one are a list of numbers.
fn are_several(prompts: &str) -> bool {
    let inner = prompts.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
    let Some(inner) = inner.map(str::trim_ascii) else { return false };
    inner.starts_with(['"', '[']) && first_of_list(prompts).is_some_and(|first| first != inner)
}

/// Whether it is read; where that depends on the model, it is not: nothing is promised then, and
/// nothing is learned from what was not found.
///
/// Who wants to be told something of every token of the prompt has every token computed: vLLM 0.32
/// sets `skip_reading_prefix_cache` where `prompt_logprobs` is more than `null`, which `echo` makes
/// of the log probabilities of the answer, and for pooling by token.
fn reads_cache(api: Api, members: &Members<'_>) -> bool {
    let has = |members: &Members<'_>, key| members.last(key).is_some_and(|value| value != "null");
    let is_on =
        |members: &Members<'_>, key| has(members, key) && members.last(key) != Some("false");
    match api {
        // `top_logprobs` is 0 where nobody says otherwise, and 0 is more than `null`.
        Api::Chat | Api::Batch => !(has(members, "prompt_logprobs") || is_on(members, "echo")),
        Api::Completions => {
            let is_echoed = is_on(members, "echo") && has(members, "logprobs");
            !(has(members, "prompt_logprobs") || is_echoed)
        }
        Api::Generate => {
            let params = Members::read(members.last("sampling_params").unwrap_or("{}"));
            params.is_ok_and(|params| {
                !(has(&params, "prompt_logprobs")
                    || has(&params, "prompt_logprob_token_ids")
                    || is_on(&params, "skip_reading_prefix_cache"))
            })
        }
        Api::Pooling | Api::Rerank | Api::Score => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_log_probabilities_of_the_prompt_has_it_computed_anew() {
        for (api, body, reads) in [
            (Api::Chat, r#"{"messages":[],"logprobs":true,"top_logprobs":3}"#, true),
            (Api::Chat, r#"{"prompt_logprobs":null,"echo":false}"#, true),
            (Api::Chat, r#"{"prompt_logprobs":0}"#, false),
            // pydantic takes it for 0.
            (Api::Chat, r#"{"prompt_logprobs":false}"#, false),
            (Api::Chat, r#"{"echo":true}"#, false),
            (Api::Batch, r#"{"messages":[[]],"prompt_logprobs":1}"#, false),
            (Api::Completions, r#"{"prompt":"a","echo":true}"#, true),
            (Api::Completions, r#"{"prompt":"a","logprobs":1}"#, true),
            (Api::Completions, r#"{"prompt":"a","echo":true,"logprobs":0}"#, false),
            (Api::Completions, r#"{"prompt":"a","prompt_logprobs":2}"#, false),
            (Api::Generate, r#"{"token_ids":[1],"prompt_logprobs":1}"#, true),
            (Api::Generate, r#"{"sampling_params":{"prompt_logprobs":1}}"#, false),
            (Api::Generate, r#"{"sampling_params":{"prompt_logprob_token_ids":[[1]]}}"#, false),
            (Api::Generate, r#"{"sampling_params":{"skip_reading_prefix_cache":true}}"#, false),
            (Api::Generate, r#"{"sampling_params":{"logprobs":1}}"#, true),
            (Api::Responses, r#"{"input":"a","top_logprobs":2}"#, true),
            (Api::Embeddings, r#"{"input":"a"}"#, true),
            (Api::Pooling, r#"{"input":"a"}"#, false),
        ] {
            assert_eq!(reads_cache(api, &Members::read(body).unwrap()), reads, "{api:?}: {body}");
        }
    }

    #[test]
    fn of_several_prompts_it_is_told_of_the_last_alone() {
        for (prompt, told) in [
            (r#""a, [b]""#, CacheUse::Told),
            (r#"[ "a" ]"#, CacheUse::Told),
            (r#"["a","b"]"#, CacheUse::Untold),
            ("[1,2]", CacheUse::Told),
            ("[[1,2]]", CacheUse::Told),
            ("[[1,2], [3]]", CacheUse::Untold),
            ("[]", CacheUse::Told),
        ] {
            let body = format!(r#"{{"prompt":{prompt}}}"#);
            let read = CacheUse::read(Api::Completions, &Members::read(&body).unwrap());
            assert_eq!(read, told, "{prompt}");
        }
    }
}
