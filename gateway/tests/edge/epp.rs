//! `hearth epp` as an Envoy meets it.

mod hostile;
mod talk;

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::HttpTrailers;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value};
use futures_util::FutureExt as _;
use loadtest::simulator::{Fleet, Simulator};
use router::discovery::StaticEndpoint;
use router::pool::Role;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use self::talk::{DESTINATION, DUPLEX, Picker, head, message, settings, streamed};
use crate::support::process::Process;
use crate::support::{MODEL, at_rest, fast_pod, hasten, metric, simulate, within};

const CHAT: &str = "/v1/chat/completions";
const EVENTS: &str = "text/event-stream";
const NONE: BodySendMode = BodySendMode::None;

/// A chat with a prompt of so many bytes.
fn chat(prompt: &str) -> String {
    serde_json::json!({"model": MODEL, "messages": [{"role": "user", "content": prompt}]})
        .to_string()
}

async fn pods(count: usize) -> (Vec<Simulator>, Vec<SocketAddr>) {
    let mut pods = Vec::new();
    for _ in 0..count {
        pods.push(simulate(fast_pod()).await);
    }
    let addresses = pods.iter().map(Simulator::addr).collect();
    (pods, addresses)
}

#[tokio::test]
async fn a_request_is_sent_on_when_it_is_whole_and_its_place_is_held_until_the_answers_end() {
    let (_pods, addresses) = pods(3).await;
    let picker = Picker::over(&addresses).await;
    let body = chat(&"prompt ".repeat(20_000));
    let mut talk = picker.call().await;
    talk.head(CHAT, &[("x-session-token", "s")], (DUPLEX, NONE));
    for piece in body.as_bytes().chunks(50_000) {
        talk.body(piece, false);
    }
    talk.body(b"", true);
    let forwarded = talk.forwarded().await;
    let pod: SocketAddr = forwarded.named.parse().expect("one address");
    assert!(addresses.contains(&pod));
    assert_eq!(forwarded.set["x-session-id"], "s");
    assert!(!forwarded.set.contains_key("content-length"), "the body is as it was");
    let (sent, lengths) = talk.forwarded_body().await;
    assert_eq!(String::from_utf8(sent).expect("UTF-8"), body);
    assert_eq!(lengths, [62_000, 62_000, body.len() - 124_000]);
    assert_eq!(picker.booked(), 1);

    talk.answer("200", EVENTS);
    let stamped = talk.answered().await;
    assert_eq!(stamped["x-upstream-host"], pod.to_string());
    assert_eq!(stamped["x-request-id"], forwarded.set["x-request-id"]);
    assert!(stamped["x-hearth-decision"].starts_with("warm;matched=0;"));
    assert_eq!(picker.booked(), 1, "the answer goes on");
    talk.say(message(Request::ResponseTrailers(HttpTrailers::default())));
    assert!(matches!(talk.next().await.response, Some(Response::ResponseTrailers(_))));
    assert_eq!(picker.booked(), 0, "at its end the place is free");

    // It is known now where that prompt is.
    let mut again = picker.ask(CHAT, &body).await;
    assert_eq!(again.forwarded().await.named, pod.to_string());
    drop((talk, again));
    picker.end().await;
}

#[tokio::test]
async fn a_body_that_envoy_holds_is_asked_for_and_stays_there() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    let mut talk = picker.call().await;
    talk.head(CHAT, &[], (BodySendMode::Buffered, BodySendMode::Streamed));
    let asked = talk.next().await;
    assert!(matches!(asked.response, Some(Response::RequestHeaders(_))));
    let mode = asked.mode_override.expect("bodies of answers are not wanted");
    assert_eq!(mode.response_body_mode(), NONE);
    let mut body = chat("hi");
    talk.body(body.as_bytes(), true);
    assert_eq!(talk.forwarded().await.named, addresses[0].to_string());

    // What no client may send is cut out.
    let mut guarded = picker.call().await;
    guarded.head(CHAT, &[], (BodySendMode::Buffered, NONE));
    guarded.next().await;
    body.insert_str(1, r#""kv_transfer_params":{"a":1},"#);
    guarded.body(body.as_bytes(), true);
    assert_eq!(guarded.forwarded().await.set["content-length"], chat("hi").len().to_string());
    drop((talk, guarded));
    picker.end().await;
}

#[tokio::test]
async fn what_is_ours_to_answer_is_answered_and_what_has_no_body_is_sent_on() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    let get = |path| head(&[(":method", "GET"), (":path", path)], true, (DUPLEX, NONE));
    for (path, status) in [("/v1/models", 200), ("/health", 200), ("/sleep", 404)] {
        let mut talk = picker.call().await;
        talk.say(get(path));
        let (found, set, body) = talk.refused().await;
        assert_eq!(found, status, "{path}");
        assert!(set.contains_key("x-request-id"));
        assert!(path != "/v1/models" || body["data"][0]["id"] == MODEL);
    }
    let mut talk = picker.call().await;
    talk.say(get("/version"));
    assert_eq!(talk.forwarded().await.named, addresses[0].to_string());
    drop(talk);
    picker.end().await;
}

#[tokio::test]
async fn a_hint_leaves_only_its_pods() {
    let (_pods, addresses) = pods(3).await;
    let picker = Picker::over(&addresses).await;
    let hint = |pods: &[String]| {
        let values = pods.iter().cloned().map(|pod| Value { kind: Some(Kind::StringValue(pod)) });
        let list = Kind::ListValue(ListValue { values: values.collect() });
        let name = "x-gateway-destination-endpoint-subset".to_owned();
        let hint = Struct { fields: [(name, Value { kind: Some(list) })].into() };
        let filter_metadata = [("envoy.lb.subset_hint".to_owned(), hint)].into();
        Some(Metadata { filter_metadata, ..Metadata::default() })
    };
    let fields = [(":method", "POST"), (":path", CHAT)];
    for pod in &addresses {
        let mut talk = picker.call().await;
        let mut first = head(&fields, false, (DUPLEX, NONE));
        first.metadata_context = hint(&[pod.to_string()]);
        talk.say(first);
        talk.body(chat("hi").as_bytes(), true);
        assert_eq!(talk.forwarded().await.named, pod.to_string());
    }
    let mut nobody = picker.call().await;
    let mut first = head(&fields, false, (DUPLEX, NONE));
    first.metadata_context = hint(&["10.0.0.1:1".to_owned()]);
    nobody.say(first);
    nobody.body(chat("hi").as_bytes(), true);
    let (status, set, error) = nobody.refused().await;
    assert_eq!((status, &error["error"]["code"]), (503, &"no_ready_pod".into()));
    assert_eq!(set["retry-after"], "1");
    picker.end().await;
}

#[tokio::test]
async fn pods_that_would_be_next_are_named_if_that_is_wanted() {
    let (_pods, addresses) = pods(3).await;
    let mut config = settings(&addresses);
    config.epp.fallbacks = 5;
    let picker = Picker::start(config).await;
    let bookings = std::sync::Arc::clone(picker.app.router.bookings());
    let mut freed = std::pin::pin!(bookings.freed());
    freed.as_mut().enable();
    let mut talk = picker.ask(CHAT, &chat("hi")).await;
    let forwarded = talk.forwarded().await;
    assert!(freed.now_or_never().is_none(), "nobody's place was taken to name it");
    let mut named: Vec<SocketAddr> =
        forwarded.set[DESTINATION].split(',').map(|pod| pod.parse().expect("an address")).collect();
    named.sort_unstable();
    let mut all = addresses.clone();
    all.sort_unstable();
    assert_eq!(named, all, "each once");
    assert_eq!(picker.booked(), 1, "only the first is booked");
    drop(talk);
    picker.end().await;
}

#[tokio::test]
async fn what_envoy_says_itself_is_no_word_of_the_pods() {
    let (_pods, addresses) = pods(2).await;
    let mut config = settings(&addresses);
    config.pool.health.failed_requests = 1;
    let picker = Picker::start(config).await;
    let body = chat(&"prompt ".repeat(1_000));
    let (http, admin) = (&picker.http, picker.app.admin_addr);
    for (details, status, is_held) in [
        ("direct_response", "200", false),
        ("cluster_not_found", "503", false),
        ("via_upstream", "200", true),
    ] {
        let mut talk = picker.ask(CHAT, &body).await;
        let pod = talk.forwarded().await.named;
        talk.forwarded_body().await;
        talk.answer_with(status, details);
        talk.answered().await;
        talk.say(message(Request::ResponseTrailers(HttpTrailers::default())));
        talk.next().await;
        drop(talk);
        at_rest(http, admin).await;
        let mut next = picker.ask(CHAT, &body).await;
        let forwarded = next.forwarded().await;
        next.forwarded_body().await;
        next.answer("404", "application/json");
        let decision = next.answered().await["x-hearth-decision"].clone();
        assert_eq!(!decision.contains("matched=0;"), is_held, "{details}: {decision}");
        assert!(!is_held || forwarded.named == pod);
        drop(next);
        at_rest(http, admin).await;
    }
    let reason = |reason| format!("hearth_errors_total{{reason=\"{reason}\"}}");
    assert_eq!(metric(http, admin, &reason("envoy")).await, 1);
    assert_eq!(metric(http, admin, &reason("pod_error")).await, 0);
    let snapshot = picker.app.router.pool().snapshot();
    let accused = snapshot.endpoints.iter().filter(|pod| pod.record.last_failure.is_some()).count();
    assert_eq!(accused, 0, "cluster_not_found is no fault of a pod's");
    picker.end().await;
}

#[tokio::test]
async fn a_sidecar_is_told_who_prefills() {
    let fleet = Fleet::start(2, fast_pod()).await.expect("free ports exist");
    let roles = [Role::Prefill, Role::Decode];
    let mut config = settings(&[]);
    let with_role =
        |(pod, role): (&Simulator, &Role)| StaticEndpoint::from(pod.addr()).with_role(*role);
    config.endpoints = fleet.pods().iter().zip(&roles).map(with_role).collect();
    (config.split.min_uncached_tokens, config.split.stall) = (Some(64), 1e9);
    let picker = Picker::start(config).await;
    let body = chat(&"prompt ".repeat(1_000));
    let mut talk = picker.ask(CHAT, &body).await;
    let forwarded = talk.forwarded().await;
    let [prefill, decode] = [0, 1].map(|pod| fleet.pods()[pod].addr().to_string());
    assert_eq!(forwarded.named, decode);
    assert_eq!(forwarded.set["x-prefiller-host-port"], prefill);
    talk.forwarded_body().await;
    talk.answer("200", EVENTS);
    assert!(
        talk.answered().await["x-hearth-decision"].ends_with(&format!("prefill=\"{prefill}\""))
    );
    let mut short = picker.ask(CHAT, &chat("hi")).await;
    assert!(!short.forwarded().await.set.contains_key("x-prefiller-host-port"));
    drop((talk, short));
    picker.end().await;
}

#[tokio::test]
async fn answers_are_looked_into_if_that_is_wanted_and_pass_as_they_are() {
    let (_pods, addresses) = pods(1).await;
    let mut config = settings(&addresses);
    config.epp.answers = true;
    let picker = Picker::start(config).await;
    let mut talk = picker.call().await;
    talk.head(CHAT, &[], (DUPLEX, DUPLEX));
    talk.body(chat("hi").as_bytes(), true);
    talk.forwarded().await;
    talk.forwarded_body().await;
    talk.answer("200", EVENTS);
    talk.answered().await;
    let token = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\
        \"prompt_tokens_details\":{\"cached_tokens\":7}}}\n\ndata: [DONE]\n\n";
    for (bytes, whole) in [(&token[..], false), (usage, true)] {
        talk.answer_body(bytes, whole);
        let Some(Response::ResponseBody(piece)) = talk.next().await.response else {
            panic!("no body");
        };
        assert_eq!(streamed(piece), (bytes.to_vec(), whole));
    }
    assert_eq!(picker.booked(), 0, "the answer is whole");
    drop(talk);
    let (http, admin) = (&picker.http, picker.app.admin_addr);
    within("the call is on record", async {
        while metric(http, admin, "hearth_cached_tokens_total").await != 7 {}
    })
    .await;
    assert_eq!(metric(http, admin, "hearth_time_to_first_token_seconds_count").await, 1);
    picker.end().await;
}

#[tokio::test]
async fn health_says_whether_requests_should_come() {
    let (pods, addresses) = pods(1).await;
    let mut config = settings(&addresses);
    hasten(&mut config);
    let picker = Picker::start(config).await;
    let mut client = HealthClient::new(picker.channel.clone());
    let service = "envoy.service.ext_proc.v3.ExternalProcessor".to_owned();
    let watched = client.watch(HealthCheckRequest { service }).await.expect("it is known");
    let mut watched = watched.into_inner();
    let mut until = async |status: i32| {
        within("its health is told", async {
            while watched.message().await.expect("no error").expect("no end").status != status {}
        })
        .await;
    };
    until(1).await;
    drop(pods);
    until(2).await;
    let alive = client.check(HealthCheckRequest { service: "liveness".to_owned() }).await;
    assert_eq!(alive.expect("it is known").into_inner().status, 1, "it lives all the same");
    picker.end().await;
}

/// As a cluster ends it.
#[tokio::test]
async fn a_sigterm_lets_the_calls_end_that_still_decide() {
    let (_pods, addresses) = pods(1).await;
    let flags = ["--epp-tls", "off", "--drain-linger", "1ms"];
    let mut hearth = Process::epp(&addresses, &flags).await;
    let channel = talk::connect(hearth.addr).await;
    let mut talk = talk::call(&channel).await;
    talk.head(CHAT, &[], (DUPLEX, NONE));
    let mut carried = talk::call(&channel).await;
    carried.head(CHAT, &[], (DUPLEX, NONE));
    carried.body(chat("hi").as_bytes(), true);
    carried.forwarded().await;
    carried.forwarded_body().await;
    carried.answer("200", EVENTS);
    carried.answered().await;
    hearth.signal("TERM");
    assert_eq!(carried.hears().await.expect("no error"), None, "Envoy carries it without us");
    talk.body(chat("hi").as_bytes(), true);
    talk.forwarded().await;
    talk.forwarded_body().await;
    talk.answer("200", EVENTS);
    talk.answered().await;
    assert_eq!(hearth.ended().await.code(), Some(0));
    assert_eq!(hearth.requests(CHAT).len(), 2);
}
