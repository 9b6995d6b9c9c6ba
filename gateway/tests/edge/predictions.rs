//! What a pod's events promised, held against what its engine then found.

use loadtest::simulator::{self, Simulator};
use router::Trust;

use crate::support::client::{post, whole};
use crate::support::{House, MODEL, config, fast_pod, simulate, within};

/// Waits until the pod is told to be exactly as it is.
pub(crate) async fn exact(house: &House, pods: usize) {
    let pool = house.app.router.pool();
    let told = async {
        loop {
            let snapshot = pool.snapshot();
            let exact = snapshot.endpoints.iter().filter(|it| it.kv_events.trust() == Trust::Exact);
            if exact.count() == pods {
                return;
            }
            // A real round trip: no clock, no busy loop.
            house.metric("hearth_kv_events_pods").await;
        }
    };
    within("the pods' events are heard", told).await;
}

/// A completion of so many ids from `first` on.
pub(crate) fn prompt(first: usize, tokens: usize, max_tokens: usize) -> String {
    let ids: Vec<usize> = (first..first + tokens).collect();
    format!(r#"{{"model":"{MODEL}","prompt":{ids:?},"max_tokens":{max_tokens}}}"#)
}

async fn has(pod: &Simulator, requests: usize) {
    let there = async {
        while pod.in_flight() < requests {
            tokio::task::yield_now().await;
        }
    };
    within("the pod has the requests", there).await;
}

/// An engine that runs one request at a time, with a cache of 40 blocks.
fn narrow() -> simulator::Config {
    let mut config = fast_pod();
    config.engine.kv_events = true;
    (config.engine.num_blocks, config.engine.max_num_seqs) = (40, 1);
    config.engine.decode_ms = 2.0;
    config
}

#[tokio::test]
async fn what_is_pushed_out_while_a_request_waits_in_the_engine_is_no_wrong_prediction() {
    let pod = simulate(narrow()).await;
    let block = narrow().engine.block_size;
    let mut settings = config(&[pod.addr()]);
    settings.queue.per_pod = 8;
    let house = House::start(settings).await;
    exact(&house, 1).await;
    let sized = |first, blocks, max| prompt(first, blocks * block + 1, max);
    let warm = sized(0, 12, 1);
    house.post("/v1/completions", &warm).await;
    within("its blocks are told", async {
        while house.metric("hearth_kv_index_exact_blocks").await < 12 {}
    })
    .await;
    // One runs; one that needs the whole cache waits behind it, and then the first one again.
    let send =
        |body: String| house.client.request(post(house.addr, "/v1/completions", whole(body)));
    let (running, hungry, warm) = (sized(10_000, 4, 150), sized(20_000, 38, 1), warm.clone());
    let third = async {
        has(&pod, 2).await;
        send(warm).await
    };
    let second = async {
        has(&pod, 1).await;
        send(hungry).await
    };
    let (_, _, third) = tokio::join!(send(running), second, third);
    let decision = third.header("x-hearth-decision");
    let promised = format!("matched={};", 12 * block);
    assert!(decision.contains(&promised) && decision.contains("trust=exact"), "{decision}");
    let cached = &third.json()["usage"]["prompt_tokens_details"]["cached_tokens"];
    assert_eq!(cached.as_u64(), Some(0), "the second one took its place");
    house.at_rest().await;
    let outcome = |outcome: &'static str| {
        let report = house.app.router.pool().snapshot().endpoints[0].kv_events.report();
        report.predictions.counts().into_iter().find(|it| it.0 == outcome).map(|it| it.1)
    };
    // The answer may come before the events that explain it: it is judged when those are here.
    within("it is judged", async {
        while outcome("overtaken") == Some(0) && outcome("over") == Some(0) {
            house.metric("hearth_bookings").await;
        }
    })
    .await;
    assert_eq!((outcome("overtaken"), outcome("over")), (Some(1), Some(0)));
    exact(&house, 1).await;
    assert_eq!(house.metric("hearth_kv_events_resets_total").await, 0, "nothing was forgotten");
    house.end().await;
    pod.shutdown().await;
}
