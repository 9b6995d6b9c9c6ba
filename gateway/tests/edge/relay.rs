//! What goes to the pod and what comes back: the same bytes, and only the headers that may travel.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use loadtest::simulator::Fault;
use serde_json::json;

use crate::support::client::{Client, pieces, post, whole};
use crate::support::echo::Echo;
use crate::support::frames::{END_HEADERS, Frames, HEADERS, block, request};
use crate::support::raw_pod::{RawPod, Reply};
use crate::support::wire::Wire;
use crate::support::{House, config, fast_pod, simulate};

/// Sizes around the limits of buffers, and large ones. The longest that passes has 32 MiB.
const SIZES: [usize; 8] = [64, 65_535, 65_536, 65_537, 1 << 20, (8 << 20) + 1, 30 << 20, 32 << 20];

/// Edits that no client would forgive: integers beyond 2^53, key order, duplicate and unknown keys,
/// escapes, spaces.
const DELICATE: &str = "{ \"z\": 123456789012345678901234567890, \"model\":\"tiny\",\r\n \
    \"a\": 9007199254740993, \"seed\": -0, \"prompt\":\"\\u00e9\\ud83d\\ude00/\\/\", \
    \"t\": 1.0e-7, \"dup\": 1, \"dup\": {\"b\":1,\"a\":2} , \"unknown\":[ 1,2 ]}\n";

/// A completion of exactly `size` bytes.
fn body(size: usize) -> Bytes {
    let (start, end) = (r#"{"model":"tiny","prompt":""#, "\"}");
    let text = (b'a'..=b'z').cycle().take(size - start.len() - end.len());
    start.bytes().chain(text).chain(end.bytes()).collect()
}

#[tokio::test]
async fn every_framing_and_size_arrives_to_the_byte() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    let http2 = Client::http2();
    for size in SIZES {
        let sent = body(size);
        for (framing, client, body) in [
            ("content-length", &house.client, whole(sent.clone())),
            ("chunked", &house.client, pieces(&sent, 10_007)),
            ("h2 with length", &http2, whole(sent.clone())),
            ("h2 without length", &http2, pieces(&sent, 10_007)),
        ] {
            let reply = client.request(post(house.addr, "/v1/completions", body)).await;
            assert_eq!(reply.status, StatusCode::OK, "{framing}, {size} bytes");
            assert!(reply.body == sent, "{framing}: {size} bytes came back changed");
            let length = echo.last_head().headers["content-length"].clone();
            assert_eq!(length.to_str().ok(), Some(size.to_string().as_str()), "{framing}");
        }
    }
    house.end().await;
}

#[tokio::test]
async fn a_byte_at_a_time_and_delicate_json_arrive_as_they_are() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    let delicate = Bytes::from_static(DELICATE.as_bytes());
    for body in [whole(delicate.clone()), pieces(&delicate, 1)] {
        let reply = house.client.request(post(house.addr, "/v1/completions", body)).await;
        assert_eq!(reply.text(), DELICATE);
    }
    house.end().await;
}

#[tokio::test]
async fn a_client_that_waits_is_told_to_continue_and_its_body_arrives() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    for size in [64, 65_537, 1 << 20] {
        let mut wire = Wire::connect(house.addr).await;
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {size}\r\n\
             expect: 100-continue\r\n\r\n"
        );
        wire.send(head.as_bytes()).await;
        assert_eq!(wire.answer().await.expect("an interim answer").status, 100);
        let sent = body(size);
        wire.send(&sent).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.body == sent), (200, true), "{size} bytes");
        assert!(!echo.last_head().headers.contains_key("expect"));
    }
    house.end().await;
}

/// HTTP/2 has no interim answer here (Pingora sends none): a client that expects one sends its body
/// when its patience ends, as curl does after a second. All the same the body arrives as it is, and
/// one that is too long is refused on its head alone.
#[tokio::test]
async fn an_http2_client_that_waits_is_served_and_its_body_arrives() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    let http2 = Client::http2();
    let waiting = |body| {
        let mut request = post(house.addr, "/v1/completions", body);
        let expect = "100-continue".parse().expect("a value");
        request.headers_mut().insert("expect", expect);
        request
    };
    for size in [64, 65_537, 1 << 20] {
        for sent in [whole(body(size)), pieces(&body(size), 1000)] {
            let reply = http2.request(waiting(sent)).await;
            assert_eq!(reply.status, StatusCode::OK);
            assert!(reply.body == body(size), "{size} bytes: {} came back", reply.body.len());
            assert!(!echo.last_head().headers.contains_key("expect"));
        }
    }
    let before = echo.requests();
    let mut frames = Frames::connect(house.addr).await;
    let fields = [("expect", "100-continue"), ("content-length", "200000000")];
    let head = block(&request("POST", "/v1/completions", &fields));
    frames.send(HEADERS, END_HEADERS, 1, &head).await;
    let outcome = frames.outcome(1).await;
    assert_eq!(outcome.and_then(|frame| frame.status()), Some(413), "before any of its body");
    assert_eq!(echo.requests(), before);
    house.end().await;
}

#[tokio::test]
async fn guarded_fields_are_cut_out_and_counted_and_nothing_else_changes() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    for (sent, arrives) in [
        (
            r#"{"model":"tiny", "kv_transfer_params":{"a":[1]}, "x":1}"#,
            json!({"model": "tiny", "x": 1}),
        ),
        (r#"{"kv\u005ftransfer_params":1,"model":"tiny"}"#, json!({"model": "tiny"})),
        (
            r#"{"model":"tiny","vllm_xargs":{"ec_transfer_params":{},"keep":2}}"#,
            json!({"model": "tiny", "vllm_xargs": {"keep": 2}}),
        ),
        (
            r#"{"model":"tiny","extra_args":{"kv_transfer_params":{}}}"#,
            json!({"model": "tiny", "extra_args": {}}),
        ),
    ] {
        let before = house.metric("hearth_guarded_fields_removed_total").await;
        let reply = house.post("/v1/completions", sent).await;
        assert_eq!(reply.json(), arrives, "{sent}");
        let counted = house.metric("hearth_guarded_fields_removed_total").await - before;
        assert_eq!(counted, 1, "{sent}");
    }
    // Wherever a pod would read them.
    for path in [
        "/v1/chat/completions/batch",
        "/generative_scoring",
        "/v1/systemone",
        "/classify",
        "/v2/embed",
        "/v1/messages/render",
    ] {
        let reply = house.post(path, r#"{"model":"tiny","kv_transfer_params":{"a":[1]}}"#).await;
        assert_eq!(reply.json(), json!({"model": "tiny"}), "{path}");
    }
    house.end().await;
}

#[tokio::test]
async fn only_headers_that_may_travel_travel_and_the_session_has_one_name() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    let mut request = post(house.addr, "/v1/completions", whole(r#"{"model":"tiny"}"#));
    for (name, value) in [
        ("connection", "x-named"),
        ("x-named", "1"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
        ("x-gateway-destination-endpoint", "10.0.0.1:1"),
        ("x-prefiller-host-port", "10.0.0.1:1"),
        ("x-data-parallel-host-port", "10.0.0.1:1"),
        ("x-envoy-original-path", "/sleep"),
        ("x-hearth-decision", "warm"),
        ("authorization", "Bearer key"),
        ("x_custom", "kept"),
        ("x-request-id", "mine-1"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "https"),
        ("cookie", "a=1; session=c=1"),
    ] {
        request
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let reply = house.client.request(request).await;
    assert_eq!((reply.status, reply.header("x-request-id")), (StatusCode::OK, "mine-1"));
    let headers = echo.last_head().headers;
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "content-length",
            "content-type",
            "cookie",
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-request-id",
            "x-session-id",
            "x_custom"
        ]
    );
    assert_eq!(
        (&headers["x-session-id"], &headers["x-request-id"]),
        (&"c=1".parse().unwrap(), &"mine-1".parse().unwrap())
    );
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "not believed, replaced");
    assert_eq!(headers["x-forwarded-host"], house.addr.to_string());
    assert_eq!(headers["x-forwarded-proto"], "http");
    house.end().await;
}

#[tokio::test]
async fn a_path_goes_on_as_it_was_spelled() {
    let echo = Echo::start().await;
    let house = House::over(&[echo.addr]).await;
    for path in ["/v1/%63hat/completions?a=%20b", "/v1%2fchat%2Fcompletions"] {
        assert_eq!(house.post(path, r#"{"model":"tiny"}"#).await.status, StatusCode::OK);
        assert_eq!(echo.last_head().uri.to_string(), path);
    }
    house.end().await;
}

#[tokio::test]
async fn every_answer_says_which_request_which_pod_and_why() {
    let pod = simulate(fast_pod()).await;
    let house = House::over(&[pod.addr()]).await;
    let http2 = Client::http2();
    let prompt = json!({"model": "tiny", "prompt": "a b c", "max_tokens": 3});
    let stream = json!({"model": "tiny", "prompt": "a b c", "max_tokens": 3, "stream": true});
    for (client, path, body, status, decision) in [
        (&house.client, "/v1/completions", prompt.clone(), 200, "warm;"),
        (&house.client, "/v1/completions", stream.clone(), 200, "warm;"),
        (&http2, "/v1/completions", prompt, 200, "warm;"),
        (&http2, "/v1/completions", stream, 200, "warm;"),
        (&house.client, "/v1/completions", json!({"model": "tiny", "prompt": 1.5}), 400, "warm;"),
        (
            &house.client,
            "/v1/completions",
            json!({"model": "no"}),
            404,
            "none;reason=model_not_found",
        ),
        (&house.client, "/v1/completions", json!([1]), 400, "none;reason=invalid_type"),
        (&http2, "/nowhere", json!({}), 404, "none;reason=unknown_url"),
        (&house.client, "/v1/models", json!({}), 405, "none;reason=method_not_allowed"),
    ] {
        let reply = client.send(house.addr, Method::POST, path, body.to_string()).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert!(!reply.header("x-request-id").is_empty());
        assert!(reply.header("x-hearth-decision").starts_with(decision), "{:?}", reply.headers);
        if decision == "warm;" {
            assert_eq!(reply.header("x-upstream-host"), pod.addr().to_string());
        }
    }
    house.end().await;
    pod.shutdown().await;
}

#[tokio::test]
async fn an_error_of_the_pods_own_passes_untouched() {
    let error = r#"{"error":{"message":"too long (parameter=x, value=1)","type":"BadRequestError","param":null,"code":400}}"#;
    let mut pod = RawPod::start([Reply::whole("400 Bad Request", error)]).await;
    let house = House::over(&[pod.addr]).await;
    for status in
        ["400 Bad Request", "404 Not Found", "422 Unprocessable", "500 Internal", "501 No"]
    {
        pod.tell([Reply::whole(status, error)]);
        let reply = house.post("/v1/completions", r#"{"model":"tiny"}"#).await;
        assert_eq!((reply.status.as_str(), reply.text()), (&status[..3], error));
        assert_eq!(pod.request().await, br#"{"model":"tiny"}"#);
        assert_eq!(pod.unseen(), 0, "{status} is not tried again");
    }
    house.end().await;
}

#[tokio::test]
async fn the_only_pods_overload_is_passed_on_when_there_is_nobody_else() {
    let pod = simulate(fast_pod()).await;
    let house = House::over(&[pod.addr()]).await;
    pod.set_fault(Some(Fault::Status { status: 503, times: None }));
    let reply = house.post("/v1/completions", r#"{"model":"tiny","prompt":"a"}"#).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.json()["error"]["type"], "Service Unavailable", "{}", reply.text());
    house.end().await;
    pod.shutdown().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let echo = Echo::start().await;
    let mut config = config(&[echo.addr]);
    config.limits.body = "1MiB".parse().expect("a size");
    let house = House::start(config).await;
    let http2 = Client::http2();
    let long = body((1 << 20) + 1);
    for (framing, client, body) in [
        ("content-length", &house.client, whole(long.clone())),
        ("chunked", &house.client, pieces(&long, 65_536)),
        ("h2 with length", &http2, whole(long.clone())),
        ("h2 without length", &http2, pieces(&long, 65_536)),
    ] {
        let reply = client.request(post(house.addr, "/v1/completions", body)).await;
        assert_eq!(reply.refusal(), (413, "body_too_large".to_owned()), "{framing}");
    }
    assert_eq!(echo.requests(), 0);
    house.end().await;
}
