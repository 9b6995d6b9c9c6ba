//! What the fleet as a whole says: models, health, browsers on other origins, unknown paths.

use std::net::SocketAddr;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::native::form;
use crate::support::client::{Body, post, whole};
use crate::support::{House, config, fast_pod, simulate, within};

#[tokio::test]
async fn the_list_is_the_union_over_pods_and_each_model_can_be_asked_for() {
    let both = simulate(fast_pod()).await;
    let adapted = simulate({
        let mut config = fast_pod();
        config.loras = vec!["org/lora".to_owned()];
        config
    })
    .await;
    let other = simulate({
        let mut config = fast_pod();
        (config.model, config.max_model_len) = ("other".to_owned(), 512);
        config
    })
    .await;
    let house = House::over(&[both.addr(), adapted.addr(), other.addr()]).await;
    let list = house.get("/v1/models").await.json();
    let cards = list["data"].as_array().expect("a list");
    let seen: Vec<(&str, &Value, &Value)> = cards
        .iter()
        .map(|card| (card["id"].as_str().expect("a name"), &card["parent"], &card["max_model_len"]))
        .collect();
    assert_eq!(
        seen,
        [
            ("org/lora", &json!("tiny"), &json!(null)),
            ("other", &json!(null), &json!(512)),
            ("tiny", &json!(null), &json!(32_768)),
        ]
    );
    for (path, id) in [
        ("/v1/models/tiny", "tiny"),
        ("/v1/models/org/lora", "org/lora"),
        ("/v1/models/org%2Flora", "org/lora"),
    ] {
        assert_eq!(house.get(path).await.json()["id"], id);
    }
    let none = house.get("/v1/models/gpt-9").await;
    assert_eq!(none.refusal(), (404, "model_not_found".to_owned()));
    for (model, pod) in [("other", &other), ("org/lora", &adapted)] {
        let body = json!({"model": model, "prompt": "a", "max_tokens": 1});
        let reply = house.post("/v1/completions", &body.to_string()).await;
        assert_eq!(reply.header("x-upstream-host"), pod.addr().to_string(), "{}", reply.text());
    }
    house.end().await;
}

#[tokio::test]
async fn an_unknown_model_is_404_and_a_missing_one_goes_to_the_only_one() {
    let pod = simulate(fast_pod()).await;
    let house = House::over(&[pod.addr()]).await;
    let unknown = house.post("/v1/chat/completions", r#"{"model":"gpt-9","messages":[]}"#).await;
    assert_eq!(unknown.refusal(), (404, "model_not_found".to_owned()));
    assert_eq!(unknown.json()["error"]["param"], "model");
    let anthropic = house.post("/v1/messages", r#"{"model":"gpt-9","messages":[]}"#).await;
    assert_eq!(anthropic.status, StatusCode::NOT_FOUND);
    assert_eq!(anthropic.json()["type"], "error");
    assert_eq!(anthropic.json()["error"]["type"], "not_found_error");
    let missing = house.post("/v1/completions", r#"{"prompt":"a","max_tokens":1}"#).await;
    assert_eq!(missing.status, StatusCode::OK, "{}", missing.text());
    house.end().await;
}

#[tokio::test]
async fn a_missing_model_goes_to_the_base_of_adapters_and_among_several_is_400() {
    let named = |model: &str| {
        let mut config = fast_pod();
        (config.model, config.loras) = (model.to_owned(), vec![format!("{model}-lora")]);
        simulate(config)
    };
    let pods = [named("tiny").await, named("other").await];
    let house = House::over(&[pods[0].addr()]).await;
    let reply = house.post("/v1/completions", r#"{"prompt":"a","max_tokens":1}"#).await;
    assert_eq!(reply.json()["model"], "tiny", "as vLLM does: {}", reply.text());
    house.end().await;
    let house = House::over(&[pods[0].addr(), pods[1].addr()]).await;
    let reply = house.post("/v1/completions", r#"{"prompt":"a"}"#).await;
    assert_eq!(reply.refusal(), (400, "model_missing".to_owned()));
    let message = reply.json()["error"]["message"].as_str().map(str::to_owned);
    let message = message.expect("a text");
    assert!(message.contains("other") && message.contains("tiny"), "{message}");
    house.end().await;
}

#[tokio::test]
async fn without_a_ready_pod_the_answer_is_503_with_retry_after() {
    let nobody = "127.0.0.1:1".parse().expect("an address");
    let house = House::start_unready(config(&[nobody])).await;
    for path in ["/v1/completions", "/v1/chat/completions"] {
        let reply = house.post(path, r#"{"model":"tiny"}"#).await;
        assert_eq!(reply.refusal(), (503, "no_ready_pod".to_owned()));
        assert_eq!(reply.header("retry-after"), "1");
    }
    assert_eq!(house.get("/health").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(house.get("/version").await.refusal(), (503, "no_ready_pod".to_owned()));
    house.end().await;
}

/// What names a model in a body that we read, and in one that goes on unread.
fn asks(addr: SocketAddr, model: &str) -> [Request<Body>; 2] {
    let read = json!({"model": model, "messages": [{"role": "user", "content": "a"}]});
    [post(addr, "/v1/chat/completions", whole(read.to_string())), form(addr, model)]
}

#[tokio::test]
async fn a_model_that_nobody_can_serve_now_is_503_and_not_unknown() {
    let (gone, other) = (simulate(fast_pod()).await, {
        let mut config = fast_pod();
        config.model = "other".to_owned();
        simulate(config).await
    });
    let house = House::over(&[gone.addr(), other.addr()]).await;
    gone.set_fault(Some(loadtest::simulator::Fault::Exit));
    gone.exited().await;
    let pool = house.app.router.pool();
    pool.report(pool.snapshot().endpoints[0].slot, router::pool::Outcome::Failed);
    pool.report(pool.snapshot().endpoints[1].slot, router::pool::Outcome::Failed);
    let one_left = pool.wait_for(|snapshot| snapshot.ready().count() == 1);
    within("the pod that went is out", one_left).await.expect("the pool lives");
    let reply = house.post("/v1/completions", r#"{"model":"tiny","prompt":"a"}"#).await;
    assert_eq!(reply.refusal(), (503, "no_ready_pod".to_owned()));
    assert_eq!(house.get("/v1/models/tiny").await.refusal(), (503, "no_ready_pod".to_owned()));
    for request in asks(house.addr, "gpt-9") {
        let (path, unknown) = (request.uri().clone(), house.client.request(request).await);
        let wanted = (404, "model_not_found".to_owned());
        assert_eq!(unknown.refusal(), wanted, "{path}: all pods have listed");
    }
    house.end().await;

    let nobody = "127.0.0.1:1".parse().expect("an address");
    let house = House::start_unready(config(&[nobody, other.addr()])).await;
    let one = house.app.router.pool().wait_for(|snapshot| snapshot.ready().count() == 1);
    within("one pod is ready", one).await.expect("the pool lives");
    for request in asks(house.addr, "tiny") {
        let (path, reply) = (request.uri().clone(), house.client.request(request).await);
        let wanted = (503, "no_ready_pod".to_owned());
        assert_eq!(reply.refusal(), wanted, "{path}: the other may serve it");
        assert_eq!(reply.header("retry-after"), "1");
    }
    house.end().await;
}

#[tokio::test]
async fn pods_that_only_prefill_make_nobody_ready() {
    let pod = simulate(fast_pod()).await;
    let mut config = config(&[pod.addr()]);
    let prefill = router::pool::Role::Prefill;
    config.endpoints = config.endpoints.into_iter().map(|it| it.with_role(prefill)).collect();
    let house = House::start(config).await;
    for path in ["/health", "/ping"] {
        assert_eq!(house.get(path).await.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    let ready = house.client.send(house.app.admin_addr, Method::GET, "/readyz", "").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE, "{}", ready.text());
    let reply = house.post("/v1/completions", r#"{"model":"tiny","prompt":"a"}"#).await;
    assert_eq!(reply.refusal(), (503, "no_ready_pod".to_owned()));
    house.end().await;
}

#[tokio::test]
async fn users_paths_pass_and_administrative_ones_never_do() {
    let pod = simulate(fast_pod()).await;
    let house = House::over(&[pod.addr()]).await;
    for path in ["/health", "/ping", "/version"] {
        assert_eq!(house.get(path).await.status, StatusCode::OK, "{path}");
    }
    for path in [
        "/metrics",
        "/load",
        "/sleep",
        "/wake_up",
        "/reset_prefix_cache",
        "/collective_rpc",
        "/pause",
        "/v1/load_lora_adapter",
        "/v1/%6coad_lora_adapter",
        "/v1/../sleep",
        "/v1/models/../../sleep",
        "//sleep",
        "/v1//chat/completions",
        "/SLEEP",
        "/docs",
        "/openapi.json",
        "/sim/fault",
        "/",
        "/v1/responses/../../sleep",
        "/v1/responses/%2e%2e/%2e%2e/sleep",
        "/v1/responses/a%2fb",
    ] {
        for method in [Method::GET, Method::POST] {
            let reply = house.client.send(house.addr, method, path, "").await;
            // Ids of models and responses may hold anything; a POST to one is 405.
            assert!(matches!(reply.status.as_u16(), 404 | 405), "{path}: {}", reply.text());
            assert!(reply.json()["error"]["message"].is_string(), "{path}");
        }
    }
    let seen = pod.requests().into_iter().map(|request| request.path);
    let strange: Vec<String> = seen.filter(|it| it != "/v1/models" && it != "/version").collect();
    assert!(strange.is_empty(), "the pod was asked for {strange:?}");
    house.end().await;
}

#[tokio::test]
async fn browsers_are_answered_where_that_is_switched_on() {
    let pod = simulate(fast_pod()).await;
    let origin = (HeaderName::from_static("origin"), HeaderValue::from_static("https://a.b"));
    for enabled in [false, true] {
        let mut config = config(&[pod.addr()]);
        config.cors.enabled = enabled;
        let house = House::start(config).await;
        let mut preflight = post(house.addr, "/v1/chat/completions", whole(""));
        *preflight.method_mut() = Method::OPTIONS;
        preflight.headers_mut().insert(origin.0.clone(), origin.1.clone());
        let preflight = house.client.request(preflight).await;
        let mut plain = post(house.addr, "/v1/nowhere", whole("{}"));
        plain.headers_mut().insert(origin.0.clone(), origin.1.clone());
        let plain = house.client.request(plain).await;
        let allowed = |reply: &crate::support::client::Reply| {
            reply.headers.get("access-control-allow-origin").cloned()
        };
        if enabled {
            assert_eq!(preflight.status, StatusCode::NO_CONTENT);
            for reply in [&preflight, &plain] {
                assert_eq!(allowed(reply), Some(HeaderValue::from_static("*")));
            }
        } else {
            assert_eq!(preflight.status, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!((allowed(&preflight), allowed(&plain)), (None, None));
        }
        house.end().await;
    }
}

#[tokio::test]
async fn only_pages_of_the_listed_origins_may_read_answers() {
    let pod = simulate(fast_pod()).await;
    let mut config = config(&[pod.addr()]);
    config.cors.enabled = true;
    config.cors.allow_origins = vec!["https://a.b".to_owned()];
    let house = House::start(config).await;
    for (origin, may_read) in [("https://a.b", true), ("https://c.d", false), ("", false)] {
        let mut request = post(house.addr, "/v1/nowhere", whole("{}"));
        if !origin.is_empty() {
            request.headers_mut().insert("origin", HeaderValue::from_static(origin));
        }
        let reply = house.client.request(request).await;
        assert_eq!(reply.headers.contains_key("access-control-allow-origin"), may_read, "{origin}");
        assert_eq!(reply.header("vary"), "origin", "whoever asks: {origin:?}");
    }
    house.end().await;
}
