//! Which header fields travel, and in which direction.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Version, request};
use pingora_http::RequestHeader;

use crate::head::{Fault, MAX_FIELDS};
use crate::refuse::Refuse;

/// Fields between two neighbours only (RFC 9110 §7.6.1), and the old or dangerous ones around them.
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that steer routing here, in Envoy or in the pod: a client cannot set them.
const STEERING: [&str; 3] = ["x-prefiller-host-port", "x-prefiller-url", "http2-settings"];

/// The same, by how they begin.
const STEERING_PREFIXES: [&str; 5] = [
    "x-gateway-destination-endpoint",
    "x-destination-endpoint",
    "x-data-parallel-",
    "x-envoy-",
    "x-hearth-",
];

/// How the fields begin that only we say to clients.
const OURS: [&str; 2] = ["x-hearth-", "access-control-"];

/// Removes everything that must not pass from a client to a pod, but for the upgrade of a WebSocket.
pub(crate) fn clean_request(head: &mut RequestHeader, keep_upgrade: bool) {
    let named = connection_nominated(&head.headers);
    let is_kept = |name: &HeaderName| {
        let is_upgrade = matches!(name.as_str(), "connection" | "upgrade");
        (keep_upgrade && is_upgrade) || travels(name, &named)
    };
    let doomed: Vec<HeaderName> =
        head.headers.keys().filter(|name| !is_kept(name)).cloned().collect();
    for name in doomed {
        head.remove_header(&name);
    }
}

/// What of a client's fields passes to a pod, and room for a few more.
pub(crate) fn for_pod(client: &HeaderMap) -> HeaderMap {
    let named = connection_nominated(client);
    let mut fields = HeaderMap::with_capacity(client.len() + 8);
    for (name, value) in client {
        if travels(name, &named) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

fn travels(name: &HeaderName, named: &[HeaderName]) -> bool {
    !is_hop(name) && !is_steering(name) && !named.contains(name)
}

/// What of a pod's fields passes to a client, and room for a few more: not what is between
/// neighbours, nor what is ours to say, whatever the pod thinks of it.
pub(crate) fn for_client(pod: &HeaderMap) -> HeaderMap {
    let named = connection_nominated(pod);
    let mut fields = HeaderMap::with_capacity(pod.len() + 8);
    for (name, value) in pod {
        if !is_hop(name) && !named.contains(name) && !is_ours(name) {
            fields.append(name.clone(), value.clone());
        }
    }
    fields
}

/// A request id: the client's own if it is short and plain, so that vLLM's ids carry it too.
#[must_use]
pub(crate) fn request_id(headers: &HeaderMap, trust: bool) -> String {
    let plain = |value: &&str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        (1..=128).contains(&value.len()) && value.bytes().all(fits)
    };
    headers
        .get("x-request-id")
        .filter(|_| trust)
        .and_then(|value| value.to_str().ok())
        .filter(plain)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// Whether the client asks for a WebSocket (RFC 6455, 4.1), the one upgrade that passes: a GET without a
/// body. With one it would carry that past every cap and deadline of bodies.
#[must_use]
pub(crate) fn is_websocket(method: &Method, headers: &HeaderMap) -> bool {
    let has_body = headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING);
    let is_named = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    method == Method::GET && !has_body && headers.get(header::UPGRADE).is_some_and(is_named)
}

/// Refuses in HTTP/2 what the ingress, which reads the heads of HTTP/1 only, refuses there: a length
/// that is said twice (libraries let it pass where both are the same), and too much of anything.
///
/// # Errors
/// [`Fault::ContentLength`], or a head that is too large.
pub(crate) fn check(head: &request::Parts, limit: usize) -> Result<(), Refuse> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    if head.headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Fault::ContentLength.into());
    }
    if head.headers.len() > MAX_FIELDS {
        return Err(Fault::TooManyFields.into());
    }
    let path = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    if fields.sum::<usize>() + path.len() > limit {
        return Err(Refuse::HeadTooLarge);
    }
    Ok(())
}

/// Whether the connection may carry another request. HTTP/1.0 has to ask for that. And a chunked
/// body is the last of its connection: Pingora's parser takes an empty chunk size for the end of the
/// body and lets a line feed stand in an extension, so a proxy in front may see another end of the
/// body than we do, and what follows would be a request that it never let through.
#[must_use]
pub(crate) fn may_stay(head: &RequestHeader) -> bool {
    let asks = head.headers.get(header::CONNECTION).is_some_and(|value| {
        let words = value.as_bytes().split(|b| *b == b',');
        words.into_iter().any(|word| word.trim_ascii().eq_ignore_ascii_case(b"keep-alive"))
    });
    let is_chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    !is_chunked && (asks || head.version != Version::HTTP_10)
}

/// Who sent the request to the proxy in front, as that has written it behind those before.
pub(crate) fn last_hop(headers: &HeaderMap) -> Option<IpAddr> {
    let hops = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    let hop = hops.rsplit(',').next()?.trim();
    hop.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()))
}

/// Whether an answer is a stream of events.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}

fn is_hop(name: &HeaderName) -> bool {
    HOP.contains(&name.as_str())
}

/// What only we say to clients: vLLM allows every origin unless it is told otherwise, and which pages
/// may read an answer is for the gateway's settings to say.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    OURS.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// An underscore counts as a dash: servers behind us may read one as the other.
pub(crate) fn is_steering(name: &HeaderName) -> bool {
    let name = name.as_str();
    // All that steers begins with one of these, and most fields do not.
    if !name.starts_with(['x', 'h']) {
        return false;
    }
    let name = name.replace('_', "-");
    STEERING.contains(&name.as_str())
        || STEERING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Fields that `Connection` names.
fn connection_nominated(headers: &HeaderMap<HeaderValue>) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // A client that nominates these would have the pod misread the request.
        .filter(|name: &HeaderName| {
            ![header::CONTENT_TYPE, header::CONTENT_LENGTH, header::HOST, header::AUTHORIZATION]
                .contains(name)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steering_and_hop_fields_go_whatever_their_case_and_the_rest_stays() {
        let mut head = RequestHeader::build("POST", b"/v1/chat/completions", None).unwrap();
        for (name, value) in [
            ("Connection", "close, X-Named, Authorization"),
            ("X-Named", "1"),
            ("TE", "trailers"),
            ("X-Gateway-Destination-Endpoint", "10.0.0.1:1"),
            ("X_Gateway_Destination_Endpoint", "10.0.0.1:1"),
            ("x-gateway_destination-endpoint-served", "10.0.0.1:1"),
            ("x-destination-endpoint-subset", "10.0.0.1"),
            ("x_prefiller_url", "http://a"),
            ("x-DATA-parallel-rank", "1"),
            ("X-Envoy-Original-Path", "/"),
            ("x-prefiller-host-port", "a:1"),
            ("HTTP2-Settings", "AAMAAABk"),
            ("Upgrade", "h2c"),
            ("Authorization", "Bearer k"),
            ("x_custom", "kept"),
            ("x-session-id", "kept"),
        ] {
            head.append_header(name, value).unwrap();
        }
        clean_request(&mut head, false);
        let mut left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "x-session-id", "x_custom"]);
    }

    #[test]
    fn a_pod_says_nothing_that_is_ours_to_say() {
        let mut pod = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-named"),
            ("x-named", "1"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("x-hearth-decision", "warm"),
            ("vary", "accept-encoding"),
            ("server", "uvicorn"),
        ] {
            pod.append(name, HeaderValue::from_static(value));
        }
        let client = for_client(&pod);
        let mut left: Vec<&str> = client.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["server", "vary"]);
    }

    #[test]
    fn a_request_id_is_kept_when_it_is_plain_and_trusted() {
        let id = |value: &'static str, trust| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static(value));
            request_id(&headers, trust)
        };
        assert_eq!(id("abc-1.2:3_4", true), "abc-1.2:3_4");
        for (value, trust) in [("abc", false), ("a b", true), ("", true), ("a\"b", true)] {
            assert_eq!(id(value, trust).len(), 36, "{value}");
        }
    }
}
