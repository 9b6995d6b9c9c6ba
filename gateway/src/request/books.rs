//! Where requests are told of: metrics, the access log, and spans.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request;

use super::account::Account;
use super::headers;
use crate::config::Forwarded;
use crate::drain::{Drain, InFlight};
use crate::telemetry::Metrics;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Held;
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

/// A request is in flight: it counts as that, and the process does not end under it.
#[derive(Debug)]
pub(crate) struct Presence {
    _in_flight: Held,
    _drain: InFlight,
}

// === impl Books ===

impl Books {
    /// Opens a request's account.
    pub(crate) fn begin(
        &self,
        account: &mut Account,
        (head, client): (&request::Parts, Option<SocketAddr>),
        (drain, trust): (&Drain, Forwarded),
    ) -> Presence {
        account.request_id = headers::request_id(&head.headers, trust.trust_request_id);
        account.trace = self.traces.as_ref().and_then(|it| it.begin(&head.headers));
        account.open(head, client);
        Presence { _in_flight: self.metrics.request_begins(), _drain: drain.enter() }
    }
}
