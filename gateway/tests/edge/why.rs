//! What an operator can ask about a request and about a pod.

use http::{Method, StatusCode};
use router::policy::PolicyName;
use serde_json::Value;

use crate::support::raw_pod::{RawPod, Reply};
use crate::support::{House, config, fast_pod, simulate};

/// A page of the admin listener.
async fn page(house: &House, path: &str) -> (StatusCode, Value) {
    let reply = house.client.send(house.app.admin_addr, Method::GET, path, "").await;
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default())
}

#[tokio::test]
async fn a_decision_can_be_asked_for_with_all_candidates_and_what_came_of_it() {
    let pods = [simulate(fast_pod()).await, simulate(fast_pod()).await];
    let house = House::over(&[pods[0].addr(), pods[1].addr()]).await;
    let prompt = "a prompt of some blocks ".repeat(40);
    let body = format!(
        r#"{{"model":"tiny","prompt":"{prompt}","stream":true,"max_tokens":4,"stream_options":{{"include_usage":true}}}}"#
    );
    let mut last = None;
    for _ in 0..2 {
        last = Some(house.post("/v1/completions", &body).await);
    }
    house.at_rest().await;
    let last = last.expect("two were sent");
    let (id, pod) = (last.header("x-request-id"), last.header("x-upstream-host"));
    let (status, page_of_one) = page(&house, &format!("/why/{id}")).await;
    assert_eq!(status, StatusCode::OK);
    let told = &page_of_one[0];
    assert_eq!((told["request_id"].as_str(), told["pick"].as_str()), (Some(id), Some(pod)));
    assert_eq!((&told["model"], &told["policy"]), (&"tiny".into(), &"warm".into()));
    let candidates = told["candidates"].as_array().expect("a list");
    assert_eq!(candidates.len(), 2);
    let chosen = candidates.iter().find(|it| it["chosen"] == true).expect("one was chosen");
    assert!(chosen["pod"] == pod && chosen["is_home"] == true, "{chosen}");
    assert!(chosen["matched_tokens"].as_u64() > Some(100), "{chosen}");
    let sum: f64 =
        chosen["terms"].as_object().expect("named terms").values().filter_map(Value::as_f64).sum();
    assert!((sum - chosen["cost_ms"].as_f64().expect("a number")).abs() < 1e-6, "{chosen}");
    let came = &told["came"];
    assert_eq!((&came["outcome"], &came["status"]), (&"answered".into(), &200.into()));
    assert!(
        came["ttft_ms"].as_f64() > Some(0.0) && told["predicted_ttft_ms"].is_number(),
        "{told}"
    );
    assert!(came["cached_tokens"].as_u64() > Some(100), "{came}");
    assert!(!page_of_one.to_string().contains("some blocks"), "no prompt is shown");

    let (_, all) = page(&house, "/why").await;
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    assert_eq!(all[0]["request_id"], id, "the latest first");
    assert_eq!(page(&house, "/why/nothing").await.0, StatusCode::NOT_FOUND);
    house.end().await;
}

#[tokio::test]
async fn every_attempt_is_told_and_each_pod_is_counted() {
    let bad = RawPod::start([Reply::whole("502 Bad Gateway", "{}")]).await;
    let good = RawPod::start([Reply::whole("200 OK", r#"{"choices":[]}"#)]).await;
    let mut config = config(&[bad.addr, good.addr]);
    config.routing.policy = PolicyName::RoundRobin;
    let house = House::start(config).await;
    let mut id = String::new();
    // Round-robin may begin with either.
    for _ in 0..2 {
        let reply = house.post("/v1/completions", r#"{"model":"tiny","prompt":"a"}"#).await;
        assert_eq!(reply.status, StatusCode::OK);
        let (_, attempts) = page(&house, &format!("/why/{}", reply.header("x-request-id"))).await;
        if attempts.as_array().map(Vec::len) == Some(2) {
            id = reply.header("x-request-id").to_owned();
        }
    }
    house.at_rest().await;
    let (_, attempts) = page(&house, &format!("/why/{id}")).await;
    let outcome = |at: usize| attempts[at]["came"]["outcome"].as_str().map(str::to_owned);
    assert_eq!([outcome(0), outcome(1)], ["status_502", "answered"].map(|it| Some(it.to_owned())));
    assert_eq!(attempts[0]["pick"], bad.addr.to_string());

    let counted = |outcome| {
        let addr = bad.addr;
        format!("hearth_pod_requests_total{{addr=\"{addr}\",outcome=\"{outcome}\",pod=\"{addr}\"}}")
    };
    assert!(house.metric(&counted("failed")).await >= 1);
    assert_eq!(house.metric(&counted("answered")).await, 0);
    let addr = good.addr;
    let ready = format!("hearth_pod_health{{addr=\"{addr}\",pod=\"{addr}\",state=\"ready\"}}");
    assert_eq!(house.metric(&ready).await, 1);
    let (_, pool) = page(&house, "/pool").await;
    let rows = pool["pods"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["address"] == bad.addr.to_string()).expect("it is listed");
    let record = &row["record"];
    assert_eq!(record["last_failure"]["reason"], "status_502", "{record}");
    assert!(record["requests"]["failed"].as_u64() >= Some(1), "{record}");
    assert!(record["since_ms"].is_u64() && record["next_probe_in_ms"].is_i64(), "{record}");
    house.end().await;
}
