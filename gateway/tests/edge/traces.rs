//! Spans as a tracing backend gets them, and what pods are told.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing;
use http::HeaderValue;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::client::{post, whole};
use crate::support::echo::Echo;
use crate::support::{House, MODEL, config, fast_pod, simulate};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENTS_SPAN: &str = "00f067aa0ba902b7";

/// What a collector has received.
struct Collector {
    endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
    _server: JoinSet<()>,
}

impl Collector {
    async fn start() -> Self {
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let app =
            Router::new().route("/v1/traces", routing::post(take)).with_state(Arc::clone(&spans));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("it is bound"));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { endpoint, spans, _server: server }
    }

    /// Ids of a span and of its parent, by the span's name.
    fn ids(&self, name: &str) -> (String, String) {
        let spans = self.spans.lock();
        let mut named = spans.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("no span `{name}`"));
        assert!(named.next().is_none(), "`{name}` came twice");
        assert_eq!(hex(&span.trace_id), TRACE);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        (hex(&span.span_id), hex(&span.parent_span_id))
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) {
    let batch = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    let scopes = batch.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    spans.lock().extend(scopes.flat_map(|scope| scope.spans));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn ask(house: &House, traceparent: Option<&str>) {
    let body = json!({"model": MODEL, "prompt": "a", "max_tokens": 1}).to_string();
    let mut request = post(house.addr, "/v1/completions", whole(body));
    if let Some(text) = traceparent {
        let value = HeaderValue::from_str(text).expect("it is plain");
        request.headers_mut().insert("traceparent", value);
    }
    assert_eq!(house.client.request(request).await.status, 200);
}

#[tokio::test]
async fn a_request_that_its_client_traces_becomes_spans_below_the_clients() {
    let (collector, pod) = (Collector::start().await, simulate(fast_pod()).await);
    let mut config = config(&[pod.addr()]);
    (config.traces.endpoint, config.traces.share) = (Some(collector.endpoint.clone()), 0.0);
    let house = House::start(config).await;
    ask(&house, Some(&format!("00-{TRACE}-{CLIENTS_SPAN}-01"))).await;
    ask(&house, Some(&format!("00-{TRACE}-{CLIENTS_SPAN}-00"))).await;
    ask(&house, None).await;
    // The last spans go out before the end.
    house.end().await;
    let (request, parent) = collector.ids("completions");
    assert_eq!(parent, CLIENTS_SPAN);
    for name in ["read", "decide", "answer"] {
        assert_eq!(collector.ids(name).1, request, "{name}");
    }
    assert_eq!(collector.spans.lock().len(), 4, "the others were not to be traced");
    let spans = collector.spans.lock();
    let facts = spans.iter().find(|span| span.name == "completions").map(|span| &span.attributes);
    let keys: Vec<_> = facts.expect("it is there").iter().map(|fact| &*fact.key).collect();
    assert!(keys.contains(&"http.response.status_code") && keys.contains(&"hearth.decision"));
}

#[tokio::test]
async fn a_pod_is_told_under_which_span_its_own_belong() {
    let (collector, echo) = (Collector::start().await, Echo::start().await);
    let mut config = config(&[echo.addr]);
    (config.traces.endpoint, config.traces.share) = (Some(collector.endpoint.clone()), 0.0);
    let house = House::start(config).await;
    ask(&house, Some(&format!("00-{TRACE}-{CLIENTS_SPAN}-01"))).await;
    let told = echo.last_head().headers["traceparent"].to_str().expect("plain").to_owned();
    ask(&house, Some(&format!("00-{TRACE}-{CLIENTS_SPAN}-00"))).await;
    let unsampled = echo.last_head().headers["traceparent"].to_str().expect("plain").to_owned();
    house.end().await;
    assert_eq!(told, format!("00-{TRACE}-{}-01", collector.ids("answer").0));
    assert_eq!(unsampled, format!("00-{TRACE}-{CLIENTS_SPAN}-00"), "as the client sent it");
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_no_request_anything() {
    let pod = simulate(fast_pod()).await;
    let mut config = config(&[pod.addr()]);
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let addr = nobody.local_addr().expect("it is bound");
    drop(nobody);
    (config.traces.endpoint, config.traces.share) = (Some(format!("http://{addr}/v1/traces")), 1.0);
    let house = House::start(config).await;
    for _ in 0..5 {
        ask(&house, None).await;
    }
    house.end().await;
}
