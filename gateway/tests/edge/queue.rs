//! More requests than the pods may have at once: who waits, in which order, and who is turned away.

use std::net::SocketAddr;

use gateway::config::Config;
use loadtest::simulator::{Fault, Simulator};
use serde_json::json;

use crate::support::client::{Client, Reply, post, whole};
use crate::support::{House, MODEL, config, fast_pod, ms, simulate, within};

const PATH: &str = "/v1/completions";

/// A gateway that lets this pod have one request at a time.
async fn narrow(pod: &Simulator, change: impl FnOnce(&mut Config)) -> House {
    let mut config = config(&[pod.addr()]);
    config.queue.per_pod = 1;
    // Nothing moves here: the pod stands still until the test says otherwise.
    config.pool.health.still_after = ms(600_000);
    change(&mut config);
    House::start(config).await
}

/// A request with this text in its prompt, by the client with this key.
async fn ask(addr: SocketAddr, key: &str, text: &str) -> Reply {
    ask_from(addr, ("192.0.2.1", key), text).await
}

/// The same of a client that a proxy in front says is there.
async fn ask_from(addr: SocketAddr, (from, key): (&str, &str), text: &str) -> Reply {
    let body = json!({"model": MODEL, "prompt": text, "max_tokens": 1}).to_string();
    let mut request = post(addr, PATH, whole(body));
    for (name, value) in [("authorization", key), ("x-forwarded-for", from)] {
        request.headers_mut().insert(name, value.parse().expect("it is fit for a header"));
    }
    Client::default().request(request).await
}

/// Has a pod with one place answer all of these, asked in this order; gives the order in which it got them.
async fn served(trust: bool, plan: [(&'static str, &'static str, &'static str); 4]) -> Vec<usize> {
    let pod = simulate(fast_pod()).await;
    let house = narrow(&pod, |config| config.forwarded.trust_addresses = trust).await;
    pod.set_fault(Some(Fault::Pause));
    let mut answers = Vec::new();
    for (number, (from, key, text)) in plan.into_iter().enumerate() {
        answers.push(tokio::spawn(ask_from(house.addr, (from, key), text)));
        if number == 0 {
            booked(&house).await;
        }
        waiting(&house, i64::try_from(number).expect("few")).await;
    }
    assert_eq!(pod.in_flight(), 1, "the others are not in its engine");
    pod.set_fault(None);
    for answer in answers {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    let bodies: Vec<_> =
        pod.requests().iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    assert_eq!(house.metric("hearth_queue_wait_seconds_count").await, 3);
    house.end().await;
    pod.shutdown().await;
    let is_of = |body: &String| plan.iter().position(|(_, _, text)| body.contains(text));
    bodies.iter().filter_map(is_of).collect()
}

/// Waits until so many requests wait.
async fn waiting(house: &House, requests: i64) {
    let all_there = async { while house.metric("hearth_queue_waiting").await != requests {} };
    within("so many wait", all_there).await;
}

/// Waits until a request has its place at a pod.
async fn booked(house: &House) {
    let has_place = async { while house.metric("hearth_bookings").await == 0 {} };
    within("it is booked", has_place).await;
}

#[tokio::test]
async fn clients_take_turns_and_a_pod_never_has_more_than_its_places() {
    let (here, there, a) = ("192.0.2.1", "198.51.100.9, 192.0.2.2", "Bearer a");
    let (b, c, d) = ("Bearer b", "Bearer c", "Bearer d");
    // The keys of one address.
    let keys = [(here, a, "first"), (here, a, "second"), (here, a, "third"), (here, b, "other's")];
    // Somebody invents a key for each request, and somebody else is at another address.
    let invented =
        [(here, a, "first"), (here, b, "second"), (here, c, "third"), (there, d, "other's")];
    for (trust, plan, order) in [
        (false, keys, [0, 1, 3, 2]),
        (true, keys, [0, 1, 3, 2]),
        (true, invented, [0, 1, 3, 2]),
        // What nobody vouches for is no address.
        (false, invented, [0, 1, 2, 3]),
    ] {
        assert_eq!(Box::pin(served(trust, plan)).await, order, "{trust}: {plan:?}");
    }
}

#[tokio::test]
async fn a_full_room_and_a_long_wait_are_429_and_say_when_to_come_back() {
    let pod = simulate(fast_pod()).await;
    let house = narrow(&pod, |config| {
        config.queue.waiting = 1;
        config.queue.wait = ms(500);
    })
    .await;
    pod.set_fault(Some(Fault::Pause));
    let running = tokio::spawn(ask(house.addr, "a", "runs"));
    within("it is booked", async { while house.metric("hearth_bookings").await == 0 {} }).await;
    let late = tokio::spawn(ask(house.addr, "a", "waits"));
    waiting(&house, 1).await;
    let full = ask(house.addr, "b", "is one too many").await;
    let late = late.await.expect("no panic");
    for refused in [full, late] {
        assert_eq!(refused.status, 429);
        assert_eq!(refused.header("retry-after"), "1");
        assert_eq!(refused.json()["error"]["code"], "overloaded");
    }
    for reason in ["full", "deadline"] {
        let name = format!("hearth_queue_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(house.metric(&name).await, 1, "{reason}");
    }
    pod.set_fault(None);
    assert_eq!(running.await.expect("no panic").status, 200);
    house.end().await;
    pod.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_room_costs_no_pod_anything() {
    let pod = simulate(fast_pod()).await;
    let house = narrow(&pod, |_| {}).await;
    pod.set_fault(Some(Fault::Pause));
    let running = tokio::spawn(ask(house.addr, "a", "runs"));
    within("it is booked", async { while house.metric("hearth_bookings").await == 0 {} }).await;
    let leaves = tokio::spawn(ask(house.addr, "a", "leaves"));
    waiting(&house, 1).await;
    let stays = tokio::spawn(ask(house.addr, "b", "stays"));
    waiting(&house, 2).await;
    leaves.abort();
    waiting(&house, 1).await;
    pod.set_fault(None);
    for answer in [running, stays] {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    let came = pod.requests().iter().any(|it| String::from_utf8_lossy(&it.body).contains("leaves"));
    assert!(!came, "its request never left the gateway");
    house.end().await;
    pod.shutdown().await;
}

#[tokio::test]
async fn who_waits_goes_to_the_pod_that_is_free_first() {
    let (stuck, other) = (simulate(fast_pod()).await, simulate(fast_pod()).await);
    let mut config = config(&[stuck.addr(), other.addr()]);
    config.queue.per_pod = 1;
    config.pool.health.still_after = ms(600_000);
    let house = House::start(config).await;
    for pod in [&stuck, &other] {
        pod.set_fault(Some(Fault::Pause));
    }
    let both = [tokio::spawn(ask(house.addr, "a", "x")), tokio::spawn(ask(house.addr, "a", "y"))];
    within("both are full", async { while house.metric("hearth_bookings").await < 2 {} }).await;
    let waits = tokio::spawn(ask(house.addr, "b", "z"));
    waiting(&house, 1).await;
    other.set_fault(None);
    let answer = waits.await.expect("no panic");
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-upstream-host")),
        (200, &*other.addr().to_string())
    );
    stuck.set_fault(None);
    for answer in both {
        assert_eq!(answer.await.expect("no panic").status, 200);
    }
    house.end().await;
    stuck.shutdown().await;
    other.shutdown().await;
}
