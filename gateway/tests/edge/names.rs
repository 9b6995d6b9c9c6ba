//! Names of models that no pod knows: aliases, and paths that name one.

use std::collections::BTreeMap;

use http::header::HeaderValue;
use loadtest::simulator::Simulator;
use router::aliases::ModelNames;
use serde_json::json;

use crate::support::client::{post, whole};
use crate::support::{House, config, fast_pod, simulate};

async fn pod(model: &str) -> Simulator {
    let mut config = fast_pod();
    model.clone_into(&mut config.model);
    simulate(config).await
}

/// Two models, `auto` for 70 % and 30 % of them, and a path for the smaller and for `auto`.
async fn house(big: &Simulator, small: &Simulator) -> House {
    let mut config = config(&[big.addr(), small.addr()]);
    let weights = BTreeMap::from([("big".to_owned(), 70), ("small".to_owned(), 30)]);
    config.model_names = ModelNames {
        aliases: [("auto".to_owned(), weights)].into(),
        paths: [("/v1/1b", "small"), ("/v1/ab-test", "auto")]
            .map(|(path, name)| (path.to_owned(), name.to_owned()))
            .into(),
    };
    House::start(config).await
}

#[tokio::test]
async fn a_path_names_the_model_whatever_the_body_says() {
    let (big, small) = (pod("big").await, pod("small").await);
    let house = house(&big, &small).await;
    for (path, body) in [
        ("/v1/1b/completions", json!({"prompt": "a", "max_tokens": 1})),
        ("/v1/1b/v1/completions", json!({"model": "big", "prompt": "a", "max_tokens": 1})),
        (
            "/v1/1b/completions",
            json!({"model": "?", "prompt": "a", "max_tokens": 1, "stream": true}),
        ),
    ] {
        let reply = house.post(path, &body.to_string()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.header("x-upstream-host"), small.addr().to_string());
        assert!(reply.text().contains(r#""model":"small""#), "{}", reply.text());
    }
    assert_eq!(house.metric(r#"hearth_alias_requests_total{alias="small""#).await, 3);
    for path in ["/v1/1bb/completions", "/v1/1b", "/v1/1b/load_lora_adapter", "/v1/1b/../metrics"] {
        assert_eq!(house.post(path, "{}").await.status, 404, "{path}");
    }
    assert_eq!(house.get("/v1/1b/models").await.status, 200);
    house.end().await;
}

#[tokio::test]
async fn an_alias_splits_sessions_by_its_weights_and_each_stays() {
    let (big, small) = (pod("big").await, pod("small").await);
    let house = house(&big, &small).await;
    let ask = async |session: &str, path: &str| {
        let body = json!({"model": "auto", "prompt": "a", "max_tokens": 1}).to_string();
        let mut request = post(house.addr, path, whole(body));
        let session = HeaderValue::from_str(session).expect("plain");
        request.headers_mut().insert("x-session-id", session);
        house.client.request(request).await.header("x-upstream-host").to_owned()
    };
    let mut bigs = 0;
    for session in (0..100).map(|n| format!("session-{n}")) {
        let first = ask(&session, "/v1/completions").await;
        assert_eq!(ask(&session, "/v1/ab-test/completions").await, first, "{session}");
        bigs += i64::from(first == big.addr().to_string());
    }
    assert!((55..85).contains(&bigs), "{bigs} of 100: the keys are fixed, and so is this");
    let of = |model| format!(r#"hearth_alias_requests_total{{alias="auto",model="{model}"}}"#);
    let counts = (house.metric(&of("big")).await, house.metric(&of("small")).await);
    assert_eq!(counts, (2 * bigs, 2 * (100 - bigs)));
    house.end().await;
}

#[tokio::test]
async fn an_alias_is_listed_with_the_length_that_fits_whichever_it_is() {
    let big = pod("big").await;
    let small = simulate({
        let mut config = fast_pod();
        (config.model, config.max_model_len) = ("small".to_owned(), 512);
        config
    })
    .await;
    let house = house(&big, &small).await;
    let list = house.get("/v1/models").await.json();
    let names: Vec<_> =
        list["data"].as_array().expect("a list").iter().map(|card| &card["id"]).collect();
    assert_eq!(names, ["auto", "big", "small"]);
    let card = house.get("/v1/models/auto").await.json();
    assert_eq!((&card["max_model_len"], &card["owned_by"]), (&json!(512), &json!("hearth")));
    house.end().await;
}
