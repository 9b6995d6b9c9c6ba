//! Before anything has gone out any failure moves on to another pod.

use gateway::config::ByteSize;
use http::StatusCode;
use http_body_util::BodyExt;
use loadtest::simulator::Fault;
use router::policy::PolicyName;

use crate::support::client::{Client, Reply as Answer, post as request, whole as body};
use crate::support::raw_pod::{LAST_CHUNK, RawPod, Reply, TOKEN, Then, stream, whole};
use crate::support::wire::{Wire, post};
use crate::support::{House, config, fast_pod, ms, simulate};

const PLAIN: &str = r#"{"model":"tiny","prompt":"a","max_tokens":1}"#;
const STREAM: &str = r#"{"model":"tiny","prompt":"a","stream":true}"#;
const SHUT_DOWN: &str =
    r#"{"error":{"message":"cannot schedule new futures after shutdown","code":500}}"#;
const ERROR_EVENT: &str = r#"{"error":{"message":"EngineCore encountered an issue","code":500}}"#;

/// A pod that fails, a pod that does not, and the gateway before them. Round-robin, so that the
/// failing one gets the first request or the second.
async fn pair(failing: &RawPod, good: &RawPod) -> House {
    let mut config = config(&[failing.addr, good.addr]);
    config.routing.policy = PolicyName::RoundRobin;
    // Every failure is to be met by a request, not by a pod that was taken out.
    config.pool.health.failed_requests = 1000;
    config.retry.budget = 1.0;
    House::start(config).await
}

fn good() -> Reply {
    Reply::whole("200 OK", r#"{"choices":[]}"#)
}

async fn ask(house: &House, body: &str) -> Answer {
    house.post("/v1/completions", body).await
}

#[tokio::test]
async fn every_failure_before_the_first_byte_moves_to_the_other_pod() {
    let event = stream(&[ERROR_EVENT]);
    for (reason, reply) in [
        ("status_502", Reply::whole("502 Bad Gateway", "{}")),
        ("busy", Reply::whole("503 Service Unavailable", "{}")),
        ("status_504", Reply::whole("504 Gateway Timeout", "{}")),
        ("engine_gone", Reply::whole("500 Internal Server Error", SHUT_DOWN)),
        ("busy", Reply::whole("429 Too Many Requests", "{}")),
        ("reset", Reply::new("", Then::Close)),
        ("reset", Reply::new("", Then::Reset)),
        ("reset", Reply::new("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Then::Close)),
        ("malformed", Reply::new("HTTP/1.1 200 OK\r\ncontent length\r\n\r\n", Then::Close)),
        ("error_event", Reply::new([&event[..], LAST_CHUNK].concat(), Then::Next)),
    ] {
        let mut failing = RawPod::start([reply.clone()]).await;
        let other = RawPod::start([good()]).await;
        let house = pair(&failing, &other).await;
        for _ in 0..2 {
            let answer = ask(&house, STREAM).await;
            assert_eq!(answer.status, StatusCode::OK, "{reason}: {reply:?}: {answer:?}");
            assert_eq!(answer.header("x-upstream-host"), other.addr.to_string(), "{reason}");
        }
        let name = format!("hearth_retries_total{{reason=\"{reason}\"");
        // A retry takes a turn too, so round-robin may begin with the same pod twice.
        let retries = house.metric(&name).await;
        assert!(retries >= 1, "{reason}: {reply:?}");
        assert_eq!(
            retries,
            i64::try_from(failing.unseen()).expect("few"),
            "{reason}: each failure was met once"
        );
        house.end().await;
    }
}

#[tokio::test]
async fn a_pod_that_refuses_connections_costs_nobody_an_answer() {
    let pods = [simulate(fast_pod()).await, simulate(fast_pod()).await];
    let mut config = config(&[pods[0].addr(), pods[1].addr()]);
    config.routing.policy = PolicyName::RoundRobin;
    let house = House::start(config).await;
    pods[0].set_fault(Some(Fault::Exit));
    pods[0].exited().await;
    for _ in 0..4 {
        let answer = ask(&house, PLAIN).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("x-upstream-host"), pods[1].addr().to_string());
    }
    house.end().await;
}

#[tokio::test]
async fn a_reused_connection_that_was_closed_is_replaced_without_blame() {
    // One answer, then a close that the gateway cannot see before it uses the connection again.
    let close_later = Reply::new(whole("200 OK", "{}"), Then::Close);
    let mut pod = RawPod::start([close_later]).await;
    let house = House::over(&[pod.addr]).await;
    for _ in 0..20 {
        let answer = ask(&house, PLAIN).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{}"));
    }
    assert_eq!(pod.unseen(), 20, "each was asked once");
    assert_eq!(house.metric("hearth_retries_total").await, 0);
    house.end().await;
}

#[tokio::test]
async fn what_a_pod_may_have_computed_is_not_sent_again_in_the_same_attempt() {
    for (reply, most) in [
        (Reply::new("", Then::ResetLate), 1),
        (Reply::new("HTTP/1.1 200", Then::Close), 1),
        (Reply::new("HTTP/1.1 200 OK\r\ncontent length\r\n\r\n", Then::Close), 1),
        // As if it had closed while it was idle: by another connection, and once.
        (Reply::new("", Then::Close), 2),
    ] {
        let mut pod = RawPod::start([good(), reply.clone()]).await;
        let house = House::over(&[pod.addr]).await;
        assert_eq!(ask(&house, PLAIN).await.status, StatusCode::OK, "its connection is kept");
        assert_eq!(pod.unseen(), 1);
        assert_eq!(ask(&house, PLAIN).await.refusal(), (502, "attempts_failed".to_owned()));
        assert!((1..=most).contains(&pod.unseen()), "{reply:?}");
        house.end().await;
    }
}

#[tokio::test]
async fn an_overload_is_passed_on_when_every_pod_has_it() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let body = r#"{"error":{"message":"busy"}}"#;
        let mut pods = [
            RawPod::start([Reply::whole(status, body)]).await,
            RawPod::start([Reply::whole(status, body)]).await,
        ];
        let house = pair(&pods[0], &pods[1]).await;
        let answer = ask(&house, PLAIN).await;
        assert_eq!((answer.status.as_str(), answer.text()), (&status[..3], body));
        assert_eq!(pods.each_mut().map(RawPod::unseen), [1, 1], "{status}");
        house.end().await;
    }
}

#[tokio::test]
async fn what_a_pod_said_is_a_better_answer_than_ours_whatever_the_others_did() {
    let said = r#"{"error":{"message":"no such thing","code":500}}"#;
    for then in [Then::Close, Then::Reset] {
        let speaking = RawPod::start([Reply::whole("500 Internal Server Error", said)]).await;
        let mut silent = RawPod::start([Reply::new("", then)]).await;
        let house = pair(&speaking, &silent).await;
        // Whoever is asked first.
        for _ in 0..4 {
            let answer = ask(&house, PLAIN).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (500, said));
            assert_eq!(answer.header("x-upstream-host"), speaking.addr.to_string());
        }
        assert_eq!(silent.unseen(), 4, "each asked both");
        house.end().await;
    }
}

#[tokio::test]
async fn a_clients_mistake_is_never_tried_again() {
    for status in ["400 Bad Request", "404 Not Found", "413 Too Large", "422 No"] {
        let mut pods = [
            RawPod::start([Reply::whole(status, "{}")]).await,
            RawPod::start([Reply::whole(status, "{}")]).await,
        ];
        let house = pair(&pods[0], &pods[1]).await;
        assert_eq!(ask(&house, PLAIN).await.status.as_str(), &status[..3]);
        let asked: usize = pods.each_mut().map(RawPod::unseen).iter().sum();
        assert_eq!(asked, 1, "{status}");
        house.end().await;
    }
}

#[tokio::test]
async fn what_a_pod_refused_it_does_not_hold() {
    let bad = Reply::whole("400 Bad Request", "{}");
    let pod = RawPod::start([bad, good(), good()]).await;
    let house = House::over(&[pod.addr]).await;
    let prompt = "a prompt of some blocks ".repeat(40);
    let body = format!(r#"{{"model":"tiny","prompt":"{prompt}"}}"#);
    for (status, is_held) in [(400, false), (200, false), (200, true)] {
        let answer = ask(&house, &body).await;
        assert_eq!(answer.status.as_u16(), status);
        let decision = answer.header("x-hearth-decision");
        assert_eq!(!decision.contains("matched=0;"), is_held, "{decision}");
    }
    house.end().await;
}

#[tokio::test]
async fn a_stream_that_has_begun_ends_with_an_error_event_and_no_done() {
    for then in [Then::Close, Then::Reset] {
        let cut = Reply::new(stream(&[TOKEN]), then);
        let mut pods = [RawPod::start([cut.clone()]).await, RawPod::start([cut]).await];
        let house = pair(&pods[0], &pods[1]).await;
        for client in [&Client::default(), &Client::http2()] {
            let body = STREAM.to_owned();
            let answer = client.send(house.addr, http::Method::POST, "/v1/completions", body).await;
            assert_eq!(answer.status, StatusCode::OK);
            let events = answer.events();
            assert_eq!(events[0], TOKEN);
            let last: serde_json::Value = serde_json::from_str(events[1]).expect("JSON");
            assert_eq!(last["error"]["code"], "upstream_cut");
            assert_eq!(events.len(), 2, "no [DONE]: {events:?}");
        }
        let asked: usize = pods.each_mut().map(RawPod::unseen).iter().sum();
        assert_eq!(asked, 2, "each request went to one pod");
        house.end().await;
    }
}

#[tokio::test]
async fn a_plain_answer_that_is_cut_is_not_taken_for_whole() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    // More than is held.
    let half = "{".repeat(2000);
    let part = format!("{head}content-length: 9000\r\n\r\n{half}");
    let chunk = format!("{head}transfer-encoding: chunked\r\n\r\n7d0\r\n{half}\r\n");
    for part in [part, chunk] {
        let mut pod = RawPod::start([Reply::new(part, Then::Close)]).await;
        let mut config = config(&[pod.addr]);
        config.survive.hold = ByteSize::from_kib(1);
        let house = House::start(config).await;
        let mut wire = Wire::connect(house.addr).await;
        wire.send(&post("/v1/completions", PLAIN)).await;
        assert!(wire.answer().await.is_none(), "the connection ends before the answer does");
        let request = request(house.addr, "/v1/completions", body(PLAIN));
        let cut = Client::http2().open(request).await.into_body().collect().await;
        assert!(cut.is_err(), "the stream is reset, not ended");
        assert_eq!(pod.unseen(), 2);
        house.end().await;
    }
}

/// Attempts that so many requests cost when every pod is broken.
async fn attempts(requests: usize, budget: f64, floor_per_s: u32) -> usize {
    let broken = Reply::whole("502 Bad Gateway", "{}");
    let mut pods = [RawPod::start([broken.clone()]).await, RawPod::start([broken]).await];
    let mut config = config(&[pods[0].addr, pods[1].addr]);
    config.pool.health.failed_requests = 100_000;
    config.retry.budget = budget;
    config.retry.floor_per_s = floor_per_s;
    let house = House::start(config).await;
    for _ in 0..requests {
        assert_eq!(ask(&house, PLAIN).await.status, StatusCode::BAD_GATEWAY);
    }
    house.end().await;
    pods.each_mut().map(RawPod::unseen).iter().sum()
}

#[tokio::test]
async fn retries_stop_at_their_share_of_traffic_and_the_floor() {
    // 20 % of 400; what is older than 10 s on a slow machine does not count.
    let made = attempts(400, 0.2, 0).await;
    assert!((401..=480).contains(&made), "{made} attempts for 400 requests");
    // And 10 per second over 10 seconds for pods with little traffic.
    let made = attempts(400, 0.2, 10).await;
    assert!((410..=400 + 80 + 100).contains(&made), "{made} attempts for 400 requests");
    assert_eq!(attempts(50, 0.0, 10).await, 50, "0 is none at all");
}

#[tokio::test]
async fn no_more_pods_are_tried_than_are_allowed() {
    let mut pods = Vec::new();
    for _ in 0..5 {
        pods.push(RawPod::start([Reply::new("", Then::Close)]).await);
    }
    let addrs: Vec<_> = pods.iter().map(|pod| pod.addr).collect();
    let house = House::over(&addrs).await;
    assert_eq!(ask(&house, PLAIN).await.refusal(), (502, "attempts_failed".to_owned()));
    let asked: usize = pods.iter_mut().map(RawPod::unseen).sum();
    assert_eq!(asked, 3, "the default");
    house.end().await;
}

#[tokio::test]
async fn a_pod_without_a_first_byte_in_time_is_504_and_asked_once() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
        transfer-encoding: chunked\r\n\r\n";
    for silence in ["", head] {
        let mut pods = [
            RawPod::start([Reply::new(silence, Then::Hold)]).await,
            RawPod::start([Reply::new(silence, Then::Hold)]).await,
        ];
        let mut config = config(&[pods[0].addr, pods[1].addr]);
        config.deadlines.first_byte = ms(200);
        let house = House::start(config).await;
        assert_eq!(ask(&house, STREAM).await.refusal(), (504, "first_byte_too_late".to_owned()));
        let asked: usize = pods.each_mut().map(RawPod::unseen).iter().sum();
        assert_eq!(asked, 1);
        house.end().await;
    }
}

#[tokio::test]
async fn a_pod_that_drips_its_head_has_no_more_time_than_a_silent_one() {
    let pod = RawPod::start([Reply::new("HTTP/1.1 200 OK\r\nx-a: ", Then::Drip)]).await;
    let mut config = config(&[pod.addr]);
    config.deadlines.first_byte = ms(300);
    let house = House::start(config).await;
    assert_eq!(ask(&house, PLAIN).await.refusal(), (504, "first_byte_too_late".to_owned()));
    house.end().await;
}

#[tokio::test]
async fn a_pod_that_falls_silent_in_the_middle_is_cut() {
    let mut pod = RawPod::start([Reply::new(stream(&[TOKEN]), Then::Hold)]).await;
    let mut config = config(&[pod.addr]);
    config.deadlines.between_bytes = ms(200);
    let house = House::start(config).await;
    let answer = ask(&house, STREAM).await;
    let events = answer.events();
    assert!(events[1].contains("upstream_cut"), "{events:?}");
    let asked = STREAM.replace("true}", "true,\"return_token_ids\":true}");
    assert_eq!(pod.request().await, asked.as_bytes());
    house.end().await;
}

#[tokio::test]
async fn a_pod_that_does_not_take_a_request_has_a_deadline_of_its_own() {
    let deaf = RawPod::start([Reply::new("", Then::Deaf)]).await;
    let mut config = config(&[deaf.addr]);
    config.deadlines.upstream_write = ms(200);
    config.retry.attempts = 1;
    let house = House::start(config).await;
    // More than the buffers between us and the pod hold.
    let body = format!(r#"{{"model":"tiny","prompt":"{}"}}"#, "x".repeat(24 << 20));
    let answer = ask(&house, &body).await;
    assert_eq!(answer.refusal(), (502, "attempts_failed".to_owned()));
    assert!(answer.text().contains("a pod did not read"), "{}", answer.text());
    house.end().await;
}

#[tokio::test]
async fn slow_heads_and_bodies_are_408_and_cost_no_pod_anything() {
    let mut pod = RawPod::start([good()]).await;
    let mut config = config(&[pod.addr]);
    config.deadlines.request_head = ms(200);
    config.deadlines.request_body = ms(200);
    let house = House::start(config).await;
    let body = post("/v1/completions", PLAIN);
    for (sent, code) in [
        (&b"POST /v1/completions HTTP/1.1\r\nhost: h\r\n"[..], "head_too_slow"),
        (b"P", "head_too_slow"),
        (&body[..body.len() - 1], "body_too_slow"),
        (&body[..body.len() - PLAIN.len()], "body_too_slow"),
    ] {
        let mut wire = Wire::connect(house.addr).await;
        wire.send(sent).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("no {code} for {sent:?}"));
        assert_eq!((answer.status, answer.code().as_str()), (408, code));
        assert!(answer.has("connection: close"), "{}", answer.head);
        assert!(wire.is_ended().await);
    }
    assert_eq!(pod.unseen(), 0);
    house.end().await;
}
