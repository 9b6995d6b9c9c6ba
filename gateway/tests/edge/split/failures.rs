//! Every way in which a leg can fail before the first token.

use router::policy::PolicyName;
use router::units::HumanDuration;

use super::*;
use crate::support::ms;
use crate::support::raw_pod::Seen;
use crate::support::wire::{Wire, post};

const ERROR: &str = r#"{"error":{"message":"Internal server error","code":500}}"#;

#[tokio::test]
async fn a_prefill_that_fails_is_done_by_the_pod_that_answers() {
    let missing = PARAMS.replace("remote_request_id", "request_id");
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
    for (reason, reply) in [
        ("status_5xx", Reply::whole("500 Internal Server Error", ERROR)),
        ("busy", Reply::whole("503 Service Unavailable", "{}")),
        ("busy", Reply::whole("429 Too Many Requests", "{}")),
        ("status_502", Reply::whole("502 Bad Gateway", "{}")),
        ("reset", Reply::new("", Then::Close)),
        ("reset", Reply::new("", Then::Reset)),
        ("reset", Reply::new(cut, Then::Close)),
        ("no_params", handed("null")),
        ("no_params", handed(&missing)),
        ("no_params", Reply::whole("200 OK", "<html>")),
    ] {
        let mut prefill = RawPod::start([reply.clone()]).await;
        let mut decode = RawPod::start([good()]).await;
        let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
        let answer = ask(&house, &plain()).await;
        assert_eq!(answer.status, StatusCode::OK, "{reply:?}: {answer:?}");
        assert_eq!(told(&answer), "split=leg-failed", "{reply:?}");
        assert_eq!(decode.request().await, plain().as_bytes(), "the client's own bytes");
        assert_eq!((prefill.unseen(), decode.unseen()), (1, 0), "{reply:?}");
        let failures =
            format!("hearth_split_failures_total{{leg=\"prefill\",reason=\"{reason}\"}}");
        assert_eq!(house.metric(&failures).await, 1, "{reply:?}");
        house.end().await;
    }
}

#[tokio::test]
async fn a_prefill_pod_that_is_silent_is_left_in_time() {
    let prefill = RawPod::start([Reply::new("", Then::Hold)]).await;
    let decode = RawPod::start([good()]).await;
    let mut config = settings([prefills(&prefill), decodes(&decode)]);
    config.split.prefill_timeout = ms(50);
    let house = House::start(config).await;
    let answer = ask(&house, &plain()).await;
    assert_eq!((answer.status, told(&answer)), (StatusCode::OK, "split=leg-failed".to_owned()));
    house.end().await;
}

#[tokio::test]
async fn another_pod_prefills_when_one_fails() {
    let failing = RawPod::start([Reply::whole("500 Internal Server Error", ERROR)]).await;
    let (good_one, decode) = (RawPod::start([handed(PARAMS)]).await, RawPod::start([good()]).await);
    let pods = [prefills(&failing), prefills(&good_one), decodes(&decode)];
    let house = House::start(settings(pods)).await;
    for n in 0..4 {
        let answer = ask(&house, &plain().replace("word", &format!("w{n}rd"))).await;
        assert_eq!((answer.status, told(&answer)), (StatusCode::OK, by(good_one.addr)));
    }
    house.end().await;
}

#[tokio::test]
async fn a_request_that_is_at_fault_blames_no_prefill_pod() {
    let wrong = Reply::whole("400 Bad Request", r#"{"error":{"message":"too long"}}"#);
    let prefill = RawPod::start([wrong.clone()]).await;
    let decode = RawPod::start([wrong]).await;
    let mut config = settings([prefills(&prefill), decodes(&decode)]);
    config.pool.health.failed_requests = 1;
    let house = House::start(config).await;
    let answer = ask(&house, &plain()).await;
    assert_eq!(
        (answer.status, told(&answer)),
        (StatusCode::BAD_REQUEST, "split=turned-down".into())
    );
    assert!(house.app.router.pool().snapshot().endpoints.iter().all(|pod| pod.is_ready()));
    house.end().await;
}

#[tokio::test]
async fn a_decode_pod_that_cannot_use_what_it_was_handed_computes_the_prompt_itself() {
    let event = [&stream(&[ERROR])[..], LAST_CHUNK].concat();
    for (reason, reply) in [
        ("status_5xx", Reply::whole("500 Internal Server Error", ERROR)),
        ("error_event", Reply::new(event, Then::Next)),
        ("no_transfer", Reply::new("", Then::Hold)),
    ] {
        let prefill = RawPod::start([handed(PARAMS)]).await;
        let mut decode = RawPod::start([reply.clone(), good()]).await;
        let mut config = settings([prefills(&prefill), decodes(&decode)]);
        config.pool.health.failed_requests = 1;
        config.split.transfer_timeout = ms(50);
        // So that the pod's bytes are the client's.
        config.survive.migrate = false;
        let house = House::start(config).await;
        let answer = ask(&house, &streamed()).await;
        assert_eq!(answer.status, StatusCode::OK, "{reason}: {answer:?}");
        assert!(told(&answer).ends_with("-failed"), "{reason}: {}", told(&answer));
        assert_ne!(
            decode.request().await,
            streamed().as_bytes(),
            "{reason}: blocks were handed over"
        );
        if reason == "no_transfer" {
            assert_eq!(decode.sees().await, Seen::Closed);
        }
        assert_eq!(
            decode.request().await,
            streamed().as_bytes(),
            "{reason}: the client's own bytes"
        );
        let all = house.app.router.pool().snapshot();
        assert!(all.endpoints.iter().all(|pod| pod.is_ready()), "{reason}: nobody is blamed");
        let failures = format!("hearth_split_failures_total{{leg=\"decode\",reason=\"{reason}\"}}");
        assert_eq!(house.metric(&failures).await, 1, "{reason}");
        let times = ["prefill", "transfer"].map(|it| format!("hearth_split_{it}_seconds_count"));
        let times = [house.metric(&times[0]).await, house.metric(&times[1]).await];
        assert_eq!(times, [1, 0], "{reason}: the legs that were answered");
        house.end().await;
    }
}

#[tokio::test]
async fn a_decode_pod_that_fails_is_left_for_another_with_a_fresh_prefill() {
    for reply in [
        Reply::whole("503 Service Unavailable", "{}"),
        Reply::new("", Then::Close),
        Reply::new("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", Then::Close),
    ] {
        let mut prefill = RawPod::start([handed(PARAMS)]).await;
        let pods = [RawPod::start([reply.clone()]).await, RawPod::start([reply.clone()]).await];
        let house =
            House::start(settings([prefills(&prefill), decodes(&pods[0]), decodes(&pods[1])]))
                .await;
        pods[1].tell([good()]);
        let answer = ask(&house, &plain()).await;
        assert_eq!(answer.status, StatusCode::OK, "{reply:?}: {answer:?}");
        assert_eq!(answer.header("x-upstream-host"), pods[1].addr.to_string());
        assert_eq!(told(&answer), by(prefill.addr));
        let asked = usize::try_from(house.metric("hearth_retries_total").await).unwrap() + 1;
        assert_eq!(prefill.unseen(), asked, "one prefill for each decode leg");
        house.end().await;
    }
}

#[tokio::test]
async fn a_prefill_that_is_too_old_is_not_used() {
    let mut prefill = RawPod::start([handed(PARAMS)]).await;
    let mut decode = RawPod::start([good()]).await;
    let mut config = settings([prefills(&prefill), decodes(&decode)]);
    // Over before any answer can be read.
    config.split.lease = HumanDuration::from_millis(0);
    let house = House::start(config).await;
    let answer = ask(&house, &plain()).await;
    assert_eq!((answer.status, told(&answer)), (StatusCode::OK, "split=lease-over".to_owned()));
    assert_eq!(decode.request().await, plain().as_bytes(), "the client's own bytes");
    assert_eq!(decode.unseen(), 0, "nobody asked for the old blocks");
    assert_eq!(prefill.unseen(), 3, "it was tried again");
    let over = "hearth_split_failures_total{leg=\"decode\",reason=\"lease_over\"}";
    assert_eq!(house.metric(over).await, 3);
    house.end().await;
}

#[tokio::test]
async fn blocks_that_nobody_can_read_are_given_back() {
    let gone = RawPod::start([good()]).await;
    let mut prefill = RawPod::start([handed(PARAMS)]).await;
    let mut decode = RawPod::start([good()]).await;
    let mut config = settings([prefills(&prefill), decodes(&gone), decodes(&decode)]);
    config.routing.policy = PolicyName::RoundRobin;
    let house = House::start(config).await;
    let short = r#"{"model":"tiny","prompt":"a","max_tokens":9}"#;
    while ask(&house, short).await.header("x-upstream-host") != decode.addr.to_string() {}
    // The other one's turn is next.
    let unknown = Reply::whole("404 Not Found", r#"{"error":{"message":"no such model"}}"#);
    decode.tell([unknown, good()]);
    decode.unseen();
    drop(gone);
    let answer = ask(&house, &plain()).await;
    assert_eq!((answer.status, told(&answer)), (StatusCode::OK, by(prefill.addr)), "{answer:?}");
    let released: Value = serde_json::from_slice(&decode.request().await).unwrap();
    assert_eq!(released["kv_transfer_params"], serde_json::from_str::<Value>(PARAMS).unwrap());
    assert_ne!(released["model"], "tiny", "it is turned down before it reaches an engine");
    let leg: Value = serde_json::from_slice(&decode.request().await).unwrap();
    assert_eq!(leg["model"], "tiny");
    assert_eq!(prefill.unseen(), 2, "the blocks are handed over anew");
    assert_eq!(house.metric("hearth_split_releases_total{told=\"yes\"}").await, 1);
    assert_eq!(house.metric("hearth_split_leaked_lease_seconds_total").await, 0);
    house.end().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_either_leg_leaves_nothing_behind() {
    for in_decode in [false, true] {
        let first = if in_decode { handed(PARAMS) } else { Reply::new("", Then::Hold) };
        let mut prefill = RawPod::start([first]).await;
        let mut decode = RawPod::start([Reply::new("", Then::Hold)]).await;
        let house = House::start(settings([prefills(&prefill), decodes(&decode)])).await;
        let mut wire = Wire::connect(house.addr).await;
        wire.send(&post("/v1/completions", &plain())).await;
        let pod = if in_decode { &mut decode } else { &mut prefill };
        pod.request().await;
        drop(wire);
        assert_eq!(pod.sees().await, Seen::Closed);
        assert_eq!(house.metric("hearth_split_leaked_lease_seconds_total").await, 0);
        house.end().await;
    }
}
