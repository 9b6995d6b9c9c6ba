//! An Envoy as `hearth epp` sees it: one call per request, message by message.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyResponse, HeaderMutation, HttpBody, HttpHeaders, ImmediateResponse, ProcessingRequest,
    ProcessingResponse, ProtocolConfiguration,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use futures_util::stream;
use gateway::app::App;
use gateway::config::{Config, Loaded};
use gateway::epp::EppTls;
use gateway::telemetry::LogLevel;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::support::client::Client;
use crate::support::{at_rest, config, within};

pub(super) const DUPLEX: BodySendMode = BodySendMode::FullDuplexStreamed;
pub(super) const DESTINATION: &str = "x-gateway-destination-endpoint";

/// A running picker whose every pod is ready, and an Envoy's connection to it.
pub(super) struct Picker {
    pub(super) app: App,
    pub(super) channel: Channel,
    pub(super) http: Client,
}

/// One call.
pub(super) struct Talk {
    says: mpsc::UnboundedSender<ProcessingRequest>,
    hears: Streaming<ProcessingResponse>,
}

/// A request as it was sent on.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) set: BTreeMap<String, String>,
    pub(super) removed: Vec<String>,
    /// What the metadata names.
    pub(super) named: String,
}

/// Settings for a picker before these pods.
pub(super) fn settings(pods: &[SocketAddr]) -> Config {
    let mut config = config(pods);
    config.epp.listen = (Ipv4Addr::LOCALHOST, 0).into();
    config.epp.tls = EppTls::Off;
    config
}

// === impl Picker ===

impl Picker {
    pub(super) async fn over(pods: &[SocketAddr]) -> Self {
        Self::start(settings(pods)).await
    }

    pub(super) async fn start(config: Config) -> Self {
        let pods = config.endpoints.len();
        let picker = Self::start_unready(config).await;
        let pool = picker.app.router.pool();
        let mut changed = pool.changed();
        within("the pods are ready", async {
            while pool.snapshot().endpoints.iter().filter(|pod| pod.is_ready()).count() < pods {
                changed.changed().await.expect("the pool lives as long as the picker");
            }
        })
        .await;
        picker
    }

    pub(super) async fn start_unready(config: Config) -> Self {
        let loaded = Loaded { hash: config.hash(), config, origins: BTreeMap::new() };
        let app = App::start_epp(loaded, LogLevel::default()).await.expect("the settings are good");
        let channel = connect(app.addr).await;
        Self { app, channel, http: Client::default() }
    }

    /// A call without a message yet.
    pub(super) async fn call(&self) -> Talk {
        call(&self.channel).await
    }

    /// A call that has sent a request, whole.
    pub(super) async fn ask(&self, path: &str, body: &str) -> Talk {
        let talk = self.call().await;
        talk.head(path, &[], (DUPLEX, BodySendMode::None));
        talk.body(body.as_bytes(), true);
        talk
    }

    /// Requests that are booked somewhere.
    pub(super) fn booked(&self) -> u64 {
        self.app.router.bookings().totals().requests
    }

    /// Waits until nothing is held, and stops.
    pub(super) async fn end(self) {
        at_rest(&self.http, self.app.admin_addr).await;
        assert_eq!(self.booked(), 0, "bookings are given back");
        within("it stops", self.app.stop()).await.expect("no task panicked");
    }
}

// === impl Talk ===

impl Talk {
    pub(super) fn say(&self, message: ProcessingRequest) {
        // It may have ended the call: what it said then is what counts.
        self.says.send(message).unwrap_or_default();
    }

    /// A POST's head.
    pub(super) fn head(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        modes: (BodySendMode, BodySendMode),
    ) {
        let fields =
            [&[(":method", "POST"), (":path", path), (":authority", "a")], fields].concat();
        self.say(head(&fields, false, modes));
    }

    pub(super) fn body(&self, bytes: &[u8], whole: bool) {
        let body = HttpBody { body: bytes.into(), end_of_stream: whole, ..HttpBody::default() };
        self.say(message(Request::RequestBody(body)));
    }

    /// The answer's head, as Envoy got it from the pod.
    pub(super) fn answer(&self, status: &str, kind: &str) {
        let headers = fields(&[(":status", status), ("content-type", kind)]);
        let head = HttpHeaders { headers: Some(headers), ..HttpHeaders::default() };
        self.say(message(Request::ResponseHeaders(head)));
    }

    /// The same of an Envoy that tells whose answer it is.
    pub(super) fn answer_with(&self, status: &str, details: &str) {
        let head =
            HttpHeaders { headers: Some(fields(&[(":status", status)])), ..HttpHeaders::default() };
        let details = Value { kind: Some(Kind::StringValue(details.to_owned())) };
        let told = Struct { fields: [("response.code_details".to_owned(), details)].into() };
        let attributes = [("envoy.filters.http.ext_proc".to_owned(), told)].into();
        self.say(ProcessingRequest { attributes, ..message(Request::ResponseHeaders(head)) });
    }

    pub(super) fn answer_body(&self, bytes: &[u8], whole: bool) {
        let body = HttpBody { body: bytes.into(), end_of_stream: whole, ..HttpBody::default() };
        self.say(message(Request::ResponseBody(body)));
    }

    /// What it says next; none: it has ended the call.
    pub(super) async fn hears(&mut self) -> Result<Option<ProcessingResponse>, Status> {
        within("it says something", self.hears.message()).await
    }

    pub(super) async fn next(&mut self) -> ProcessingResponse {
        self.hears().await.expect("no error").expect("it says something")
    }

    /// The request as it is sent on: its head.
    pub(super) async fn forwarded(&mut self) -> Forwarded {
        let said = self.next().await;
        let named = said.dynamic_metadata.clone().and_then(|metadata| {
            let Some(Kind::StructValue(lb)) = metadata.fields.get("envoy.lb")?.kind.clone() else {
                return None;
            };
            match lb.fields.get(DESTINATION)?.kind.clone()? {
                Kind::StringValue(pods) => Some(pods),
                _ => None,
            }
        });
        let common = match said.response {
            Some(Response::RequestHeaders(it)) => it.response,
            Some(Response::RequestBody(it)) => it.response,
            other => panic!("no head: {other:?}"),
        };
        let common = common.expect("it changes the head");
        assert!(common.clear_route_cache);
        let mutation = common.header_mutation.expect("it names a pod");
        let named = named.expect("the metadata names it too");
        let removed = mutation.remove_headers.clone();
        let forwarded = Forwarded { set: set(&mutation), removed, named };
        assert_eq!(forwarded.set[DESTINATION], forwarded.named);
        forwarded
    }

    /// The request as it is sent on: its body, and the lengths of its pieces.
    pub(super) async fn forwarded_body(&mut self) -> (Vec<u8>, Vec<usize>) {
        let (mut body, mut lengths) = (Vec::new(), Vec::new());
        loop {
            let said = self.next().await;
            let Some(Response::RequestBody(piece)) = said.response else {
                panic!("no body: {said:?}");
            };
            let (bytes, is_last) = streamed(piece);
            lengths.push(bytes.len());
            body.extend_from_slice(&bytes);
            if is_last {
                return (body, lengths);
            }
        }
    }

    /// What is set in the answer's head.
    pub(super) async fn answered(&mut self) -> BTreeMap<String, String> {
        let said = self.next().await;
        let Some(Response::ResponseHeaders(head)) = said.response else {
            panic!("no head of an answer: {said:?}");
        };
        set(&head.response.and_then(|it| it.header_mutation).expect("it sets fields"))
    }

    /// Its own answer, with which the call ends.
    pub(super) async fn refused(&mut self) -> (u16, BTreeMap<String, String>, serde_json::Value) {
        let said = self.next().await;
        let Some(Response::ImmediateResponse(answer)) = said.response else {
            panic!("it was not refused: {said:?}");
        };
        assert_eq!(self.hears().await.expect("no error"), None, "the call is over");
        let ImmediateResponse { status, headers, body, .. } = answer;
        let status = u16::try_from(status.expect("a status").code).expect("a status");
        let body = serde_json::from_slice(&body).unwrap_or_default();
        (status, set(&headers.unwrap_or_default()), body)
    }
}

/// An Envoy's connection.
pub(super) async fn connect(addr: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{addr}")).expect("a URL");
    endpoint.connect().await.expect("it listens")
}

/// A call without a message yet.
pub(super) async fn call(channel: &Channel) -> Talk {
    let (says, mut heard) = mpsc::unbounded_channel();
    let messages = stream::poll_fn(move |context| heard.poll_recv(context));
    let mut client = ExternalProcessorClient::new(channel.clone());
    let called = within("it takes the call", client.process(messages)).await;
    Talk { says, hears: called.expect("it takes calls").into_inner() }
}

/// A request's head, as the first message of a call.
pub(super) fn head(
    all: &[(&str, &str)],
    whole: bool,
    (request, answer): (BodySendMode, BodySendMode),
) -> ProcessingRequest {
    let head =
        HttpHeaders { headers: Some(fields(all)), end_of_stream: whole, ..HttpHeaders::default() };
    let protocol_config = Some(ProtocolConfiguration {
        request_body_mode: request.into(),
        response_body_mode: answer.into(),
        send_body_without_waiting_for_header_response: false,
    });
    ProcessingRequest { protocol_config, ..message(Request::RequestHeaders(head)) }
}

pub(super) fn message(request: Request) -> ProcessingRequest {
    ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }
}

/// A piece of a body in a full duplex, and whether it is the last.
pub(super) fn streamed(body: BodyResponse) -> (Vec<u8>, bool) {
    match body.response.and_then(|it| it.body_mutation?.mutation) {
        Some(Mutation::StreamedResponse(piece)) => (piece.body, piece.end_of_stream),
        other => panic!("not streamed: {other:?}"),
    }
}

fn fields(all: &[(&str, &str)]) -> core::HeaderMap {
    let field = |(name, value): &(&str, &str)| core::HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_bytes().into(),
        ..core::HeaderValue::default()
    };
    core::HeaderMap { headers: all.iter().map(field).collect() }
}

fn set(mutation: &HeaderMutation) -> BTreeMap<String, String> {
    let fields = mutation.set_headers.iter().filter_map(|it| it.header.as_ref());
    let text = |field: &core::HeaderValue| String::from_utf8(field.raw_value.clone());
    fields.map(|field| (field.key.clone(), text(field).expect("ASCII"))).collect()
}
