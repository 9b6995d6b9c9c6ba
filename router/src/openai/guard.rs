//! Fields that only a gateway may send to a pod.
//!
//! One client request with `kv_transfer_params` kills a vLLM decode server that runs NIXL
//! (`assert num_external_tokens == 0`), so they are cut out of client bodies, wherever vLLM would
//! find them: at the top, and inside `vllm_xargs` and `extra_args`, which end in the same place, and
//! which stand in `sampling_params` where a request has those.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::members::{Member, Members};
use super::scan::BadJson;

/// What clients may not send.
pub const GUARDED_FIELDS: [&str; 2] = ["kv_transfer_params", "ec_transfer_params"];

/// Objects in which vLLM looks for them too.
const NESTS: [&str; 3] = ["vllm_xargs", "extra_args", "sampling_params"];

/// How deep they stand in each other.
const NEST_DEPTH: u32 = 2;

/// Where the guarded members stand in `body`, in ascending order: cutting these ranges out leaves
/// valid JSON and every other byte as it was.
///
/// # Errors
/// When a nest is not JSON; `body` itself must have been read already.
pub(super) fn spans(body: &str, members: &Members<'_>) -> Result<Vec<Range<usize>>, BadJson> {
    let mut found = Vec::new();
    find(body, (body, members), NEST_DEPTH, &mut found)?;
    found.sort_unstable_by_key(|span| span.start);
    Ok(found)
}

fn find(
    body: &str,
    (object, members): (&str, &Members<'_>),
    depth: u32,
    found: &mut Vec<Range<usize>>,
) -> Result<(), BadJson> {
    found.extend(cut(body, object, members, |key| GUARDED_FIELDS.contains(&key)));
    for Member { key, value, .. } in &members.0 {
        if depth > 0 && NESTS.contains(&&**key) && value.starts_with('{') {
            find(body, (value, &Members::read(value)?), depth - 1, found)?;
        }
    }
    Ok(())
}

/// The body without those ranges.
#[must_use]
pub fn without(body: &Bytes, spans: &[Range<usize>]) -> Bytes {
    if spans.is_empty() {
        return body.clone();
    }
    let mut rest = BytesMut::with_capacity(body.len());
    let mut from = 0;
    for span in spans {
        if span.start > from {
            rest.put_slice(&body[from..span.start]);
        }
        from = from.max(span.end);
    }
    rest.put_slice(&body[from..]);
    rest.freeze()
}

/// The ranges of those members of `object` that are to be cut out, by their keys, as offsets into
/// `body`, each with one comma.
pub(super) fn cut(
    body: &str,
    object: &str,
    members: &Members<'_>,
    is_cut: impl Fn(&str) -> bool,
) -> Vec<Range<usize>> {
    let offset = |inner: &str| inner.as_ptr().addr() - body.as_ptr().addr();
    let mut spans = Vec::new();
    let mut end = offset(object) + object.find('{').unwrap_or(0) + 1;
    let mut anything_kept = false;
    for Member { key, value, .. } in &members.0 {
        let before = end;
        end = offset(value) + value.len();
        let is_cut = is_cut(key);
        anything_kept |= !is_cut;
        if !is_cut {
            continue;
        }
        if anything_kept {
            spans.push(before..end);
        } else {
            // Nothing stands before it, so the comma after it goes, if there is one.
            let tail = body[end..].trim_start();
            end = if tail.starts_with(',') { offset(tail) + 1 } else { end };
            spans.push(before..end);
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(body: &str) -> String {
        let spans = spans(body, &Members::read(body).unwrap()).unwrap();
        let rest = without(&Bytes::copy_from_slice(body.as_bytes()), &spans);
        String::from_utf8(rest.to_vec()).unwrap()
    }

    #[test]
    fn guarded_members_go_and_all_other_bytes_stay() {
        for (body, want) in [
            (r#"{"a": 1 , "b":2}"#, r#"{"a": 1 , "b":2}"#),
            (r#"{"kv_transfer_params":{"x":[1,{"y":"}"}]}}"#, "{}"),
            (r#"{ "kv_transfer_params" : 1 , "a":9007199254740993}"#, r#"{ "a":9007199254740993}"#),
            (r#"{"a":1, "kv_transfer_params":null}"#, r#"{"a":1}"#),
            (r#"{"a":1,"ec_transfer_params":0 ,"b":2}"#, r#"{"a":1 ,"b":2}"#),
            (
                r#"{"kv_transfer_params":1,"ec_transfer_params":2,"kv_transfer_params":3,"a":"," }"#,
                r#"{"a":"," }"#,
            ),
            ("{\"\\u006bv_transfer_params\":1,\"a\":2}", r#"{"a":2}"#),
            (
                r#"{"vllm_xargs":{"kv_transfer_params":{},"k":1},"extra_args" : { "ec_transfer_params":1 }}"#,
                r#"{"vllm_xargs":{"k":1},"extra_args" : { }}"#,
            ),
            (
                r#"{"sampling_params":{"extra_args":{"kv_transfer_params":{"a":1},"k":1},"n":1}}"#,
                r#"{"sampling_params":{"extra_args":{"k":1},"n":1}}"#,
            ),
            (
                r#"{"m":"kv_transfer_params","n":{"kv_transfer_params":1}}"#,
                r#"{"m":"kv_transfer_params","n":{"kv_transfer_params":1}}"#,
            ),
        ] {
            assert_eq!(cleaned(body), want, "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_left_is_json_without_guarded_members(
            keys in proptest::collection::vec("kv_transfer_params|ec_transfer_params|[a-c]{1}", 0..8),
            space in "[ \n]{0,2}",
        ) {
            let members: Vec<String> =
                keys.iter().enumerate().map(|(i, k)| format!("{space}\"{k}\"{space}:{i}{space}")).collect();
            let body = format!("{{{}}}", members.join(","));
            let rest = cleaned(&body);
            let left = Members::read(&rest).unwrap();
            let want: Vec<&String> =
                keys.iter().filter(|k| !GUARDED_FIELDS.contains(&k.as_str())).collect();
            let got: Vec<String> = left.0.iter().map(|member| member.key.to_string()).collect();
            proptest::prop_assert_eq!(want, got.iter().collect::<Vec<_>>());
        }
    }
}
