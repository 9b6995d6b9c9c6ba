//! Whether an engine looks into its prefix cache for a request.

use super::Api;
use super::members::Members;

/// Whether it does; where that depends on the model, it does not: nothing is promised then, and
/// nothing is learned from what was not found.
///
/// Who wants to be told something of every token of the prompt has every token computed: vLLM 0.32
/// sets `skip_reading_prefix_cache` where `prompt_logprobs` is more than `null`, which `echo` makes
/// of the log probabilities of the answer, and for pooling by token.
pub(super) fn reads_cache(api: Api, members: &Members<'_>) -> bool {
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
}
