//! A first token that is late is asked of a second pod as well.

use router::policy::PolicyName;
use router::rescue::RescueSettings;

use crate::support::client::Reply as Answer;
use crate::support::raw_pod::{RawPod, Reply, Seen, Then, stream};
use crate::support::{House, config, ms, within};

const STREAM: &str = r#"{"model":"tiny","prompt":"a","stream":true}"#;
const PLAIN: &str = r#"{"model":"tiny","prompt":"a"}"#;
/// What vLLM says before the first token.
const HEAD: &str = r#"{"choices":[{"index":0,"text":"","finish_reason":null}]}"#;
const WON: &str = "hearth_rescues_total{outcome=\"won\"";
const LOST: &str = "hearth_rescues_total{outcome=\"lost\"";
const OVER_BUDGET: &str = "hearth_rescues_total{outcome=\"over_budget\"";

/// A pod that says nothing before it is released.
async fn silent() -> RawPod {
    RawPod::start([Reply::new(stream(&[HEAD]), Then::Hold)]).await
}

/// A gateway that asks a second pod soon, and as often as it may be of use.
async fn house(pods: &[&RawPod], budget: f64) -> House {
    let mut config = config(&pods.iter().map(|pod| pod.addr).collect::<Vec<_>>());
    config.routing.policy = PolicyName::RoundRobin;
    config.survive.rescue = RescueSettings { budget, times: 1.0, floor: ms(20) };
    House::start(config).await
}

/// Asks, and tells the pods in the order in which they were asked.
async fn between<F: Future<Output = ()>>(
    house: &House,
    pods: [RawPod; 2],
    then: impl FnOnce([RawPod; 2]) -> F,
) -> Answer {
    let [mut a, mut b] = pods;
    let asked = async {
        let is_first = tokio::select! {
            _request = a.request() => true,
            _request = b.request() => false,
        };
        let (first, mut second) = if is_first { (a, b) } else { (b, a) };
        second.request().await;
        then([first, second]).await;
    };
    tokio::join!(house.post("/v1/completions", STREAM), asked).0
}

#[tokio::test]
async fn the_second_pod_answers_if_it_speaks_first_and_the_first_is_closed() {
    let pods = [silent().await, silent().await];
    let house = house(&[&pods[0], &pods[1]], 1.0).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let answer = between(&house, pods, |[mut first, second]| async move {
        second.release();
        assert_eq!(first.sees().await, Seen::Closed);
        tell.send(second.addr).expect("the test goes on");
    })
    .await;
    assert_eq!(answer.events().last(), Some(&"[DONE]"), "{}", answer.text());
    assert_eq!(answer.header("x-upstream-host"), told.await.expect("an address").to_string());
    assert_eq!((house.metric(WON).await, house.metric(LOST).await), (1, 0));
    house.end().await;
}

#[tokio::test]
async fn the_first_pod_answers_if_it_speaks_after_all_and_the_second_is_closed() {
    let pods = [silent().await, silent().await];
    let house = house(&[&pods[0], &pods[1]], 1.0).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let answer = between(&house, pods, |[first, mut second]| async move {
        first.release();
        assert_eq!(second.sees().await, Seen::Closed);
        tell.send(first.addr).expect("the test goes on");
    })
    .await;
    assert_eq!(answer.header("x-upstream-host"), told.await.expect("an address").to_string());
    assert_eq!((house.metric(WON).await, house.metric(LOST).await), (0, 1));
    house.end().await;
}

#[tokio::test]
async fn a_second_pod_that_fails_changes_nothing_for_the_first() {
    let slow = silent().await;
    let mut failing = RawPod::start([Reply::new("", Then::Close)]).await;
    let mut config = config(&[slow.addr, failing.addr]);
    config.routing.policy = PolicyName::RoundRobin;
    config.pool.health.failed_requests = 1000;
    config.retry.budget = 1.0;
    config.survive.rescue = RescueSettings { budget: 1.0, times: 1.0, floor: ms(20) };
    let house = House::start(config).await;
    // Whether it was asked first or second, it fails, and nobody is asked besides the two.
    let failed = async {
        failing.request().await;
        slow.release();
    };
    let (answer, ()) = tokio::join!(house.post("/v1/completions", STREAM), failed);
    assert_eq!(answer.header("x-upstream-host"), slow.addr.to_string());
    assert_eq!(failing.unseen(), 0);
    house.end().await;
}

#[tokio::test]
async fn no_more_than_a_share_of_the_streams_is_asked_twice_and_no_plain_answer() {
    let mut pods = [silent().await, silent().await];
    let house = house(&[&pods[0], &pods[1]], 0.05).await;
    let over_budget = async {
        while house.metric(OVER_BUDGET).await == 0 {}
        pods.iter().for_each(RawPod::release);
    };
    let answer = house.post("/v1/completions", STREAM);
    let (answer, ()) = tokio::join!(answer, within("the budget is asked", over_budget));
    assert_eq!(answer.status, 200);
    let asked: usize = pods.iter_mut().map(RawPod::unseen).sum();
    assert_eq!(asked, 1);
    house.end().await;
}

#[tokio::test]
async fn a_second_pod_without_a_free_place_costs_no_budget() {
    let mut pods = [silent().await, silent().await];
    let mut config = config(&[pods[0].addr, pods[1].addr]);
    config.routing.policy = PolicyName::RoundRobin;
    // Two streams are worth one rescue.
    config.survive.rescue = RescueSettings { budget: 0.5, times: 1.0, floor: ms(20) };
    config.queue.per_pod = 1;
    let house = House::start(config).await;
    let both_full = async {
        while house.metric("hearth_rescues_total{outcome=\"full\"").await == 0 {}
        pods.iter().for_each(RawPod::release);
    };
    let ask = || house.post("/v1/completions", STREAM);
    let (a, b, ()) =
        tokio::join!(ask(), ask(), within("the first finds the other full", both_full));
    assert_eq!((a.status.as_u16(), b.status.as_u16()), (200, 200));
    assert_eq!(pods.each_mut().map(RawPod::unseen), [1, 1]);
    house.at_rest().await;
    // The one that comes now has what they did not spend.
    let saved = async {
        let [a, b] = pods.each_mut();
        tokio::join!(a.request(), b.request());
        a.release();
        b.release();
    };
    let (answer, ()) = tokio::join!(ask(), within("it is asked of both", saved));
    assert_eq!(answer.status, 200);
    assert_eq!(house.metric(OVER_BUDGET).await, 0);
    house.end().await;
}

#[tokio::test]
async fn a_plain_answer_is_asked_once_however_late_it_is() {
    let mut pods = [silent().await, silent().await];
    pods.iter().for_each(|pod| pod.tell([Reply::new("", Then::Hold)]));
    let mut config = config(&[pods[0].addr, pods[1].addr]);
    config.survive.rescue = RescueSettings { budget: 1.0, times: 1.0, floor: ms(20) };
    config.deadlines.first_byte = ms(300);
    let house = House::start(config).await;
    assert_eq!(house.post("/v1/completions", PLAIN).await.status, 504);
    assert_eq!(pods.iter_mut().map(RawPod::unseen).sum::<usize>(), 1);
    house.end().await;
}
