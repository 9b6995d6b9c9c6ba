//! Spans for a tracing backend: which requests are traced, under which ids, and how spans get out
//! (OTLP over HTTP, in batches, by a thread of the SDK's own). Without an endpoint there is none of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};
use tokio::runtime::Handle;

use crate::config;

/// W3C Trace Context's field.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest wait for the last spans at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(3);
/// Longest time for one batch: a backend that hangs costs spans, and no request anything.
const EXPORT_LIMIT: Duration = Duration::from_secs(5);
/// How often a batch goes out that is not full.
const DELAY: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Traces {
    processor: Arc<BatchSpanProcessor>,
    share: f64,
}

/// One traced request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    trace: TraceId,
    /// Its own span.
    request: SpanId,
    /// The span of what pods do for it: theirs hang below.
    pod: SpanId,
    /// The client's.
    parent: Option<SpanId>,
}

/// A stretch of a request's life.
#[derive(Debug)]
pub struct Part {
    /// What happened.
    pub name: &'static str,
    /// From when to when.
    pub time: (SystemTime, SystemTime),
    /// Facts.
    pub attributes: Vec<KeyValue>,
    /// What the part is.
    pub kind: PartKind,
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// The request as a whole, and why it failed if it did.
    Request(Option<&'static str>),
    /// Work of our own.
    Inner,
    /// A leg that prefills at another pod.
    Prefill,
    /// The leg that answers.
    Answer,
}

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The endpoint, mostly.
    #[error("traces.endpoint: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The HTTP client.
    #[error("traces: {0}")]
    Client(#[from] reqwest::Error),
}

/// Sends batches on the gateway's own runtime, whichever thread asks.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: Handle,
}

// === impl Traces ===

impl Traces {
    /// Opens the way out, if there is an endpoint. Must be called on the runtime that will send.
    ///
    /// # Errors
    /// See [`TracesError`]. That nobody listens there is none.
    pub fn open(settings: &config::Traces) -> Result<Option<Self>, TracesError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(EXPORT_LIMIT)
            // Plain HTTP: no roots, so that none need be found on a bare image.
            .tls_certs_only([])
            .build()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender { client, runtime: Handle::current() })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_LIMIT)
            .build()?;
        let batches = BatchConfigBuilder::default().with_scheduled_delay(DELAY).build();
        let mut processor =
            BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        processor.set_resource(&Resource::builder().with_service_name("hearth").build());
        Ok(Some(Self { processor: Arc::new(processor), share: settings.share }))
    }

    /// The request's ids if it is traced: as its client has decided, else for a share of requests.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Option<Trace> {
        let said = headers.get(TRACEPARENT).and_then(|value| parse(value.to_str().ok()?));
        let (trace, parent) = match said {
            Some((_, _, false)) => return None,
            Some((trace, parent, true)) => (trace, Some(parent)),
            None if rand::random::<f64>() < self.share => {
                (TraceId::from_bytes(rand::random()), None)
            }
            None => return None,
        };
        let id = || SpanId::from_bytes(rand::random());
        Some(Trace { trace, request: id(), pod: id(), parent })
    }

    /// The request has ended: its spans go out by and by.
    pub fn end(&self, trace: &Trace, parts: Vec<Part>) {
        for part in parts {
            self.processor.on_end(trace.span(part));
        }
    }

    /// Sends what is left, and ends the thread.
    pub async fn shutdown(self) {
        let processor = self.processor;
        let flush = move || processor.shutdown_with_timeout(FLUSH_LIMIT);
        match tokio::task::spawn_blocking(flush).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans are lost"),
            Err(error) => tracing::warn!(%error, "the last spans are lost"),
        }
    }
}

// === impl Trace ===

impl Trace {
    /// What the pod is told.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.pod)
    }

    fn span(&self, part: Part) -> SpanData {
        let (id, parent, kind) = match part.kind {
            PartKind::Request(_) => (self.request, self.parent, SpanKind::Server),
            PartKind::Answer => (self.pod, Some(self.request), SpanKind::Client),
            PartKind::Prefill => {
                (SpanId::from_bytes(rand::random()), Some(self.request), SpanKind::Client)
            }
            PartKind::Inner => {
                (SpanId::from_bytes(rand::random()), Some(self.request), SpanKind::Internal)
            }
        };
        let status = match part.kind {
            PartKind::Request(Some(error)) => Status::error(error),
            _ => Status::Unset,
        };
        SpanData {
            span_context: SpanContext::new(
                self.trace,
                id,
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: matches!(part.kind, PartKind::Request(_)),
            span_kind: kind,
            name: part.name.into(),
            start_time: part.time.0,
            end_time: part.time.1,
            attributes: part.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("hearth").build(),
        }
    }
}

/// `00-TRACE-SPAN-FLAGS` of W3C Trace Context, or a later version that begins so: its trace, its span,
/// and whether it is sampled.
fn parse(text: &str) -> Option<(TraceId, SpanId, bool)> {
    let mut fields = text.split('-');
    let mut field = |digits: usize| {
        let field = fields.next()?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (field.len() == digits && field.bytes().all(is_hex)).then_some(field)
    };
    let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((trace, span, flags & 1 == 1))
}

// === impl Sender ===

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = async move {
            let answer = client.execute(request.try_into()?).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        };
        let (status, body) = self.runtime.spawn(sending).await??;
        Ok(http::Response::builder().status(status).body(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_as_w3c_says_and_anything_else_is_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let read = |text: &str| {
            parse(text)
                .map(|(trace, span, is_sampled)| (trace.to_string(), span.to_string(), is_sampled))
        };
        for (flags, is_sampled) in [("01", true), ("00", false), ("03", true)] {
            let want = (trace.to_owned(), span.to_owned(), is_sampled);
            assert_eq!(read(&format!("00-{trace}-{span}-{flags}")), Some(want));
        }
        assert!(read(&format!("01-{trace}-{span}-01-more")).is_some(), "a later version");
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-more"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-+{}-{span}-01", &trace[1..]),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
    }
}
