//! What a request asks for, and whether an answer to it can go on at another pod.

/// What becomes of a request's member when its answer goes on at another pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// It goes on as the client wrote it.
    Same,
    /// It did its work on the first pod: it made the prompt, whose ids we have, or it says nothing to
    /// the engine.
    Spent,
    /// We write our own: what is left of it, or what the next pod needs.
    Ours,
    /// Harmless with one of these values (or `null`), and nothing to carry on; with any other the
    /// answer cannot go on.
    Only(&'static [&'static str]),
    /// Without effect where sampling is greedy (`temperature: 0`). Elsewhere vLLM's V1 runner draws
    /// other numbers after the cut (measured), so the answer cannot go on.
    Greedy,
    /// Fine where the model must not call them (`tool_choice: "none"`): a call's raw markup would
    /// come back as text.
    Uncalled,
    /// Fine if it asks for text: a grammar would begin anew.
    Text,
}

use Carry::{Greedy, Ours, Same, Spent, Text, Uncalled};

const ZERO: Carry = Carry::Only(&["0", "0.0"]);
const ONE: Carry = Carry::Only(&["1"]);
const FALSE: Carry = Carry::Only(&["false"]);
const TRUE: Carry = Carry::Only(&["true"]);
const NEVER: Carry = Carry::Only(&[]);

/// Every member of a chat or a completion that we know, from vLLM 0.32's protocol. A member that is
/// not here may mean anything: with it an answer cannot go on.
///
/// What goes on does so exactly where sampling is greedy and the model computes in float32 (14 of 14
/// cuts); in bf16 or with sampling it goes on with the same distribution, not the same bytes.
pub const FEATURES: &[(&str, Carry)] = &[
    ("add_generation_prompt", Spent),
    ("add_special_tokens", Spent),
    ("allowed_token_ids", Same),
    ("bad_words", Same),
    ("best_of", ONE),
    ("cache_salt", Same),
    ("chat_template", Spent),
    ("chat_template_kwargs", Spent),
    ("continue_final_message", Spent),
    ("documents", Spent),
    ("echo", FALSE),
    // Tokens of the answer would count as prompt: 5 of 6 continuations diverge.
    ("frequency_penalty", ZERO),
    ("guided_choice", NEVER),
    ("guided_grammar", NEVER),
    ("guided_json", NEVER),
    ("guided_regex", NEVER),
    ("ignore_eos", Same),
    // Without it the pod hides the ids.
    ("include_reasoning", TRUE),
    ("include_stop_str_in_output", Same),
    ("length_penalty", Spent),
    ("logit_bias", Same),
    ("logprobs", FALSE),
    ("max_completion_tokens", Ours),
    ("max_tokens", Ours),
    ("messages", Spent),
    ("metadata", Spent),
    ("min_p", Same),
    ("min_tokens", Ours),
    ("model", Ours),
    ("n", ONE),
    ("parallel_tool_calls", Spent),
    ("presence_penalty", ZERO),
    ("priority", Same),
    ("prompt", Spent),
    ("prompt_logprobs", NEVER),
    ("reasoning_effort", Spent),
    ("repetition_penalty", Same),
    ("request_id", Spent),
    ("response_format", Text),
    ("return_prompt_text", Spent),
    ("return_token_ids", Ours),
    ("return_tokens_as_token_ids", Same),
    ("safety_identifier", Spent),
    ("seed", Greedy),
    ("service_tier", Spent),
    ("session_id", Spent),
    ("skip_special_tokens", Same),
    ("spaces_between_special_tokens", Same),
    ("stop", Same),
    ("stop_token_ids", Same),
    ("store", Spent),
    ("stream", Ours),
    ("stream_options", Ours),
    ("suffix", NEVER),
    ("temperature", Same),
    ("tool_choice", Carry::Only(&["\"auto\"", "\"none\""])),
    ("tools", Uncalled),
    ("top_k", Same),
    ("top_logprobs", ZERO),
    ("top_p", Same),
    ("truncate_prompt_tokens", Spent),
    ("truncation_side", Spent),
    ("use_beam_search", FALSE),
    ("user", Spent),
    ("vllm_xargs", Same),
];

/// What becomes of a member; none for one that we do not know.
pub(super) fn carry(name: &str) -> Option<Carry> {
    let at = FEATURES.binary_search_by_key(&name, |(known, _)| known).ok()?;
    Some(FEATURES[at].1)
}
