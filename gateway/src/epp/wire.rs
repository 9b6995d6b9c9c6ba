//! Envoy's messages and what they mean in HTTP: heads, fields, metadata.

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::ext_proc::v3::{HeaderMutation, ProcessingRequest};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request};
use router::subset::Subset;

use crate::head::Fault;

/// Where the pod is named, as a field and in the metadata.
pub(super) const DESTINATION: &str = "x-gateway-destination-endpoint";

/// Where the pod is named that really answered.
const SERVED: &str = "x-gateway-destination-endpoint-served";

/// The metadata that load balancers look at.
const LB: &str = "envoy.lb";

/// The metadata that says which pods a request may go to.
const SUBSET_HINT: (&str, &str) = ("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset");

/// Attributes, if Envoy was told to send some.
const ATTRIBUTES: &str = "envoy.filters.http.ext_proc";

/// A field of a head to set, the target of a request (`:path`) among them.
pub(super) type Field = (Cow<'static, str>, Bytes);

/// A head that is none.
#[derive(Debug, thiserror::Error)]
#[error("a head without a `{0}` that can be read")]
pub(crate) struct BadHead(&'static str);

/// A request's head, and what is wrong with its method or target, for which the head has `GET /` then:
/// Envoy lets pass what no URL may hold, and a request that we do not refuse it may send on unread
/// (`failure_mode_allow`). That it has come in the form of HTTP/2 is all that can be seen of how it came.
///
/// # Errors
/// No method, or no target.
pub(super) fn request_head(
    map: &core::HeaderMap,
) -> Result<(request::Parts, Option<Fault>), BadHead> {
    let (mut head, ()) = http::Request::new(()).into_parts();
    let pseudo = |name| pseudo(map, name).ok_or(BadHead(name));
    head.version = Version::HTTP_2;
    let mut fault = None;
    match pseudo(":method")?.parse() {
        Ok(method) => head.method = method,
        Err(_invalid) => fault = Some(Fault::RequestLine),
    }
    match pseudo(":path")?.parse() {
        Ok(target) => head.uri = target,
        Err(_invalid) => fault = Some(Fault::Target),
    }
    head.headers = fields(map);
    let authority = pseudo(":authority").ok().and_then(|it| HeaderValue::from_str(it).ok());
    if let Some(authority) = authority {
        head.headers.entry(header::HOST).or_insert(authority);
    }
    Ok((head, fault))
}

/// An answer's status and fields.
///
/// # Errors
/// No status.
pub(super) fn response_head(map: &core::HeaderMap) -> Result<(StatusCode, HeaderMap), BadHead> {
    let status = pseudo(map, ":status").and_then(|status| status.parse().ok());
    Ok((status.ok_or(BadHead(":status"))?, fields(map)))
}

/// All but the pseudo fields. What is no field in HTTP is left out: pods would not get it either.
fn fields(map: &core::HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(map.headers.len());
    for field in &map.headers {
        let name = HeaderName::from_bytes(field.key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(bytes_of(field))) {
            fields.append(name, value);
        }
    }
    fields
}

/// What is not text is none that anything can be made of, and so empty.
fn pseudo<'a>(map: &'a core::HeaderMap, name: &str) -> Option<&'a str> {
    let field = map.headers.iter().find(|field| field.key == name)?;
    Some(std::str::from_utf8(bytes_of(field)).unwrap_or_default())
}

/// Envoy writes a value in one of two places.
fn bytes_of(field: &core::HeaderValue) -> &[u8] {
    if field.raw_value.is_empty() { field.value.as_bytes() } else { &field.raw_value }
}

/// Fields to set, and others to take away.
pub(super) fn mutation(set: Vec<Field>, remove: Vec<String>) -> HeaderMutation {
    let set = set.into_iter().map(|(name, value)| core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.into_owned(),
            raw_value: value.into(),
            ..core::HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..core::HeaderValueOption::default()
    });
    HeaderMutation { set_headers: set.collect(), remove_headers: remove }
}

/// The metadata that names the pod.
pub(super) fn destination(pods: &str) -> Struct {
    let of = |name: &str, kind| Struct {
        fields: [(name.to_owned(), Value { kind: Some(kind) })].into(),
    };
    of(LB, Kind::StructValue(of(DESTINATION, Kind::StringValue(pods.to_owned()))))
}

/// Who gave an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The pod that was named, or this one.
    Pod(Option<SocketAddr>),
    /// Envoy itself, which did not reach the pod, or got no answer of it.
    Unreached,
    /// Envoy itself, without asking the pod: it has no such cluster, say, or another filter refused.
    Envoy,
    /// One of the two: it is not told.
    Unknown,
}

/// Who gave the answer, as far as it is told (`response_attributes: [response.code_details]`).
pub(super) fn origin(message: &ProcessingRequest) -> Origin {
    match attribute(message, "response.code_details") {
        Some("via_upstream") => Origin::Pod(served(message)),
        // `upstream_reset_before_response_started{...}`, `upstream_response_timeout` and their like.
        Some(details) if details.starts_with("upstream_") => Origin::Unreached,
        Some(_) => Origin::Envoy,
        None => served(message).map_or(Origin::Unknown, |pod| Origin::Pod(Some(pod))),
    }
}

/// The pods that the request may go to, if it was said.
pub(super) fn subset(message: &ProcessingRequest) -> Option<Subset> {
    let (namespace, name) = SUBSET_HINT;
    Some(match metadata(message, namespace, name)? {
        Kind::StringValue(list) => Subset::of(list),
        Kind::ListValue(ListValue { values }) => {
            let names = values.iter().filter_map(|value| match &value.kind {
                Some(Kind::StringValue(name)) => Some(&**name),
                _ => None,
            });
            Subset::of(&names.collect::<Vec<_>>().join(","))
        }
        // It was meant to leave us some.
        _ => Subset::default(),
    })
}

/// The pod that really answered, if it is told.
fn served(message: &ProcessingRequest) -> Option<SocketAddr> {
    match metadata(message, LB, SERVED)? {
        Kind::StringValue(addr) => addr.parse().ok(),
        _ => None,
    }
}

/// The client's end of its connection, if it is told (`request_attributes: [source.address]`).
pub(super) fn source(message: &ProcessingRequest) -> Option<SocketAddr> {
    attribute(message, "source.address")?.parse().ok()
}

fn attribute<'a>(message: &'a ProcessingRequest, name: &str) -> Option<&'a str> {
    match message.attributes.get(ATTRIBUTES)?.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(value) => Some(value),
        _ => None,
    }
}

fn metadata<'a>(message: &'a ProcessingRequest, namespace: &str, name: &str) -> Option<&'a Kind> {
    let metadata = message.metadata_context.as_ref()?.filter_metadata.get(namespace)?;
    metadata.fields.get(name)?.kind.as_ref()
}
