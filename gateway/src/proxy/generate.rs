//! A generation request: its body is held whole and read once, then it is relayed.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use pingora_proxy::Session;
use router::Router;
use router::openai::Api;
use router::query::Query;
use tokio::runtime::RuntimeFlavor;

use super::account::Account;
use super::relay::End;
use super::{Gateway, body};
use crate::drain::Phase;
use crate::refuse::Refuse;
use crate::telemetry::Metrics;

impl Gateway {
    /// Reads a generation request, and relays it.
    pub(super) async fn generate(
        &self,
        session: &mut Session,
        account: &mut Account,
        api: Api,
    ) -> Result<End, Refuse> {
        let body = self.read_body(session).await?;
        account.body_bytes = Some(body.bytes.len());
        let headers = &session.req_header().headers;
        let query = read((&self.router, &self.metrics), account, (api, headers), &body.bytes)?;
        self.relay(session, account, &query, &body.bytes).await
    }

    /// The whole body, within its bounds.
    pub(super) async fn read_body(&self, session: &mut Session) -> Result<body::Body, Refuse> {
        let bounds = body::Bounds {
            bytes: self.config.limits.body.len(),
            deadline: self.config.deadlines.request_body.get(),
        };
        let mut body = pin!(body::Body::read(session, bounds, &self.bodies));
        tokio::select! {
            biased;
            body = &mut body => body,
            () = self.drain.reached(Phase::Cutting) => Err(Refuse::Draining),
        }
    }
}

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
