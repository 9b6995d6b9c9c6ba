//! Reads a request, once it is whole.

use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use router::Router;
use router::openai::{Api, with, without};
use router::query::Query;
use tokio::runtime::RuntimeFlavor;

use super::account::Account;
use crate::refuse::Refuse;
use crate::telemetry::Metrics;

/// Reads a request, and notes what it says.
///
/// # Errors
/// It cannot be read, or no pod lists its model.
pub(crate) fn read(
    (router, metrics): (&Router, &Metrics),
    account: &mut Account,
    (api, headers): (Api, &HeaderMap),
    body: &Bytes,
) -> Result<Query, Refuse> {
    let (asked, began) = (account.asked.as_deref(), Instant::now());
    let is_tokenized = !router.tokenizers().is_empty();
    let mut query =
        off_reactor((body.len(), is_tokenized), || router.read_as(asked, api, headers, body))?;
    account.reading = Some((began, Instant::now()));
    query.request_id.clone_from(&account.request_id);
    account.knows(&query);
    metrics.guarded_fields_removed.inc_by(query.guarded.len() as u64);
    if let Some((alias, model)) = query.alias.as_deref().zip(query.model.as_deref()) {
        metrics.alias(alias, model);
    }
    Ok(query)
}

/// Runs what takes long for long bodies so that this thread's other requests go on elsewhere
/// meanwhile: reading 1 MB of text takes a millisecond, tokenizing it 15 and more. To go elsewhere
/// costs a thread's waking, so shorter ones stay.
fn off_reactor<T>((body_bytes, is_tokenized): (usize, bool), work: impl FnOnce() -> T) -> T {
    let long = if is_tokenized { 256 << 10 } else { 1 << 20 };
    let flavor = tokio::runtime::Handle::current().runtime_flavor();
    if body_bytes < long || flavor != RuntimeFlavor::MultiThread {
        return work();
    }
    tokio::task::block_in_place(work)
}

/// The body without what no client may send, and with the name by which pods know the model.
pub(crate) fn for_any_pod(query: &Query, body: &Bytes) -> Result<Bytes, Refuse> {
    renamed(query, without(body, &query.guarded))
}

/// The body with the name by which the pod knows the model, if it says another.
fn renamed(query: &Query, body: Bytes) -> Result<Bytes, Refuse> {
    let Some((_alias, model)) = query.alias.as_ref().zip(query.model.as_deref()) else {
        return Ok(body);
    };
    let name = serde_json::Value::from(model).to_string();
    with(&body, &[("model", name)]).map_err(|_read_before| Refuse::Internal)
}
