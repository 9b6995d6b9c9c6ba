//! Where requests are told of: metrics, the access log, and spans.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{StatusCode, request};

use super::Ctx;
use super::headers;
use crate::config::Forwarded;
use crate::drain::Drain;
use crate::telemetry::Metrics;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::traces::Traces;

/// Where requests are told of.
#[derive(Debug)]
pub(crate) struct Books {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where a line per request goes, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Where spans go, if anywhere.
    pub traces: Option<Traces>,
}

/// A request as its client sent it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    /// Its head.
    pub head: &'a request::Parts,
    /// The client's end of the connection.
    pub client: Option<SocketAddr>,
}

// === impl Books ===

impl Books {
    /// Opens a request's account.
    pub(crate) fn begin(
        &self,
        ctx: &mut Ctx,
        head: &request::Parts,
        (drain, trust): (&Drain, Forwarded),
    ) {
        ctx.in_flight = Some(self.metrics.request_begins());
        ctx.drain = Some(drain.enter());
        ctx.request_id = headers::request_id(&head.headers, trust.trust_request_id);
        ctx.trace = self.traces.as_ref().and_then(|it| it.begin(&head.headers));
    }

    /// Closes it, with the status of the answer and its bytes.
    pub(crate) fn end(&self, ctx: &Ctx, sent: Sent<'_>, (status, bytes): (StatusCode, usize)) {
        ctx.count(&self.metrics, status, bytes);
        if let Some((traces, trace)) = self.traces.as_ref().zip(ctx.trace) {
            traces.end(&trace, ctx.spans(status));
        }
        if let Some(log) = &self.access_log {
            log.write(ctx.record(sent, status));
        }
    }
}
