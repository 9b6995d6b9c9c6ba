//! A generation request: its body is held whole and read once, then it is relayed.

use std::pin::pin;
use std::time::Instant;

use pingora_proxy::Session;
use router::openai::Api;
use tokio::runtime::RuntimeFlavor;

use super::relay::End;
use super::{Ctx, Gateway, body};
use crate::drain::Phase;
use crate::refuse::Refuse;

impl Gateway {
    /// Reads a generation request, and relays it.
    pub(super) async fn generate(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        api: Api,
    ) -> Result<End, Refuse> {
        let body = self.read_body(session).await?;
        ctx.body_bytes = Some(body.bytes.len());
        let headers = &session.req_header().headers;
        let (asked, began) = (ctx.asked.as_deref(), Instant::now());
        let mut query = self.off_reactor(body.bytes.len(), || {
            self.router.read_as(asked, api, headers, &body.bytes)
        })?;
        ctx.reading = Some((began, Instant::now()));
        query.request_id.clone_from(&ctx.request_id);
        ctx.model.clone_from(&query.model);
        ctx.session.clone_from(&query.session);
        self.metrics.guarded_fields_removed.inc_by(query.guarded.len() as u64);
        if let Some((alias, model)) = query.alias.as_deref().zip(query.model.as_deref()) {
            self.metrics.alias(alias, model);
        }
        self.relay(session, ctx, &query, &body.bytes).await
    }

    /// Runs what takes long for long bodies so that this thread's other requests go on elsewhere
    /// meanwhile: reading 1 MB of text takes a millisecond, tokenizing it 15 and more. To go elsewhere
    /// costs a thread's waking, so shorter ones stay.
    fn off_reactor<T>(&self, body_bytes: usize, work: impl FnOnce() -> T) -> T {
        let long = if self.router.tokenizers().is_empty() { 1 << 20 } else { 256 << 10 };
        let flavor = tokio::runtime::Handle::current().runtime_flavor();
        if body_bytes < long || flavor != RuntimeFlavor::MultiThread {
            return work();
        }
        tokio::task::block_in_place(work)
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
