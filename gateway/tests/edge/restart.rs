//! Pods roll under load, and more requests come than the pods have room for.

use std::net::SocketAddr;

use futures_util::future::join_all;
use http::Method;
use loadtest::jobs::TargetOptions;
use loadtest::jobs::restart::{self, How};
use loadtest::simulator::{Break, Fault, Fleet, Simulator};
use router::policy::PolicyName;
use serde_json::{Value, json};

use crate::support::client::{Client, Reply};
use crate::support::{House, MODEL, config, fast_pod, hasten, ms, within};

/// Rolls three pods under load, one after the other.
async fn roll(how: How) {
    let mut pod = fast_pod();
    // A stream lasts long enough to be met.
    pod.engine.decode_ms = 1.0;
    let fleet = Fleet::start(3, pod).await.expect("free ports");
    let mut config = config(&fleet.pods().iter().map(Simulator::addr).collect::<Vec<_>>());
    hasten(&mut config);
    config.retry.budget = 1.0;
    let house = House::start(config).await;
    let options = restart::Options {
        target: TargetOptions {
            gateway_url: Some(format!("http://{}", house.addr)),
            model_id: MODEL.to_owned(),
            ..TargetOptions::default()
        },
        pod_urls: fleet.pods().iter().map(Simulator::url).collect(),
        how,
        away_ms: 200,
        concurrency: 8,
        requests_away: 24,
        prompts: 8,
        max_tokens: 24,
        ..restart::Options::default()
    };
    let mut out = Vec::new();
    let outcome = restart::run(&options, &mut out).await.expect("the pods come back");
    let out = String::from_utf8(out).expect("text");
    assert_eq!(out.matches("served again").count(), 3, "{how:?}: {out}");
    assert_eq!(outcome.toll.visible(), 0, "{how:?}: {out}");
    assert!(outcome.toll.whole() >= 72, "{how:?}: {out}");
    house.end().await;
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_pods_that_are_killed_one_after_the_other() {
    roll(How::Kill).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_pods_that_fall_silent_when_they_are_told_to_end() {
    roll(How::Terminate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_sees_engines_that_die_one_after_the_other() {
    roll(How::EngineDeath).await;
}

/// Requests at once, where two pods have four places each and sixteen may wait.
const REQUESTS: usize = 100;
const PLACES: i64 = 8;
const WAITING: i64 = 16;

async fn ask(gateway: SocketAddr, body: String) -> Reply {
    Client::default().send(gateway, Method::POST, "/v1/completions", body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overload_costs_those_who_are_too_many_and_nobody_else() {
    let fleet = Fleet::start(2, fast_pod()).await.expect("free ports");
    let mut config = config(&fleet.pods().iter().map(Simulator::addr).collect::<Vec<_>>());
    config.queue.per_pod = 4;
    config.queue.waiting = 16;
    // Nothing moves here: the pods stand still until the test says otherwise.
    config.pool.health.still_after = ms(600_000);
    let house = House::start(config).await;
    // Twice: what the first time has left behind would be missing the second time.
    for _ in 0..2 {
        let refused_before = house.metric("hearth_queue_refused_total").await;
        fleet.pods().iter().for_each(|pod| pod.set_fault(Some(Fault::Pause)));
        let asked = (0..REQUESTS).map(|number| {
            let body = json!({"model": MODEL, "prompt": format!("{number}"), "max_tokens": 1});
            tokio::spawn(ask(house.addr, body.to_string()))
        });
        let asked: Vec<_> = asked.collect();
        let too_many = i64::try_from(REQUESTS).expect("few") - PLACES - WAITING;
        let all_there = async {
            while house.metric("hearth_queue_refused_total").await - refused_before < too_many {}
        };
        within("who is too many is told", all_there).await;
        assert_eq!(house.metric("hearth_queue_waiting").await, WAITING);
        for pod in fleet.pods() {
            within("its places are taken", has_requests(pod, 4)).await;
            assert_eq!(pod.in_flight(), 4, "and no more");
        }
        fleet.pods().iter().for_each(|pod| pod.set_fault(None));
        let mut answered = 0;
        for answer in join_all(asked).await {
            let answer = answer.expect("no panic");
            match answer.status.as_u16() {
                200 => answered += 1,
                429 => assert_eq!(answer.header("retry-after"), "1"),
                other => panic!("{other}: {answer:?}"),
            }
        }
        assert_eq!(answered, PLACES + WAITING, "whoever was let in was answered");
        house.at_rest().await;
        assert_eq!(house.metric("hearth_queue_waiting").await, 0);
    }
    house.end().await;
    fleet.shutdown().await;
}

#[tokio::test]
async fn a_pod_that_is_out_for_failed_requests_is_better_than_none() {
    let fleet = Fleet::start(2, fast_pod()).await.expect("free ports");
    let mut config = config(&fleet.pods().iter().map(Simulator::addr).collect::<Vec<_>>());
    config.routing.policy = PolicyName::RoundRobin;
    config.retry.budget = 1.0;
    config.pool.health.failed_requests = 1;
    (config.pool.health.ejected_min, config.pool.health.ejected_max) = (ms(600_000), ms(600_000));
    let house = House::start(config).await;
    let [out, sound] = fleet.pods() else { panic!("two pods") };
    // Its answers end before their first token, and its probes are answered.
    let fails = Fault::Break { after_tokens: Some(0), how: Break::Cut, times: None };
    out.set_fault(Some(fails));
    let body = json!({"model": MODEL, "prompt": "a", "max_tokens": 8, "ignore_eos": true,
        "temperature": 0, "stream": true});
    let body = body.to_string();
    let whole = house.post("/v1/completions", &body).await;
    let is_out = async {
        while house.app.router.pool().snapshot().ready().count() == 2 {
            house.post("/v1/completions", &body).await;
        }
    };
    within("it is out", is_out).await;
    out.set_fault(None);
    let cut = Fault::Break { after_tokens: Some(3), how: Break::Cut, times: Some(1) };
    sound.set_fault(Some(cut));
    let answer = house.post("/v1/completions", &body).await;
    let text = |answer: &Reply| {
        let events = answer.events().into_iter().filter_map(|it| serde_json::from_str(it).ok());
        let texts = events.map(|it: Value| it["choices"][0]["text"].as_str().map(str::to_owned));
        texts.flatten().collect::<String>()
    };
    assert_eq!(answer.events().last(), Some(&"[DONE]"), "{}", answer.text());
    assert_eq!(text(&answer), text(&whole));
    assert_eq!(house.metric("hearth_migrations_total{outcome=\"continued\"").await, 1);
    house.end().await;
    fleet.shutdown().await;
}

/// Waits until so many requests are at the pod.
async fn has_requests(pod: &Simulator, wanted: usize) {
    while pod.in_flight() < wanted {
        tokio::task::yield_now().await;
    }
}
