//! Calls that no Envoy would make, and those that end where they should not: nothing is held after any.

use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use tonic::Code;

use super::talk::{DUPLEX, Picker, settings};
use super::{CHAT, EVENTS, NONE, chat, pods};
use crate::support::{metric, ms, within};

#[tokio::test]
async fn what_cannot_be_meant_ends_the_call_and_says_why() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    let failure = async |says: &dyn Fn(&super::talk::Talk)| {
        let mut talk = picker.call().await;
        says(&talk);
        let status = talk.hears().await.expect_err("the call fails");
        assert_eq!(status.code(), Code::FailedPrecondition);
        status.message().to_owned()
    };
    let twice = failure(&|talk| {
        talk.head(CHAT, &[], (DUPLEX, NONE));
        talk.head(CHAT, &[], (DUPLEX, NONE));
    });
    assert_eq!(twice.await, "a second head");
    let first = failure(&|talk| talk.body(b"{}", true)).await;
    assert_eq!(first, "a body before the request's head: set request_header_mode to SEND");
    let mode = failure(&|talk| talk.head(CHAT, &[], (BodySendMode::Streamed, NONE))).await;
    assert_eq!(mode, "request_body_mode STREAMED: set FULL_DUPLEX_STREAMED or BUFFERED");
    picker.end().await;
}

#[tokio::test]
async fn bodies_have_a_limit_said_or_sent() {
    let (_pods, addresses) = pods(1).await;
    let mut config = settings(&addresses);
    config.limits.body = gateway::config::ByteSize::from_kib(1);
    let picker = Picker::start(config).await;
    let mut said = picker.call().await;
    said.head(CHAT, &[("content-length", "2000")], (DUPLEX, NONE));
    let mut sent = picker.call().await;
    sent.head(CHAT, &[], (DUPLEX, NONE));
    sent.body(&[b' '; 1024], false);
    sent.body(b" ", false);
    let mut whole = picker.call().await;
    whole.head(CHAT, &[], (BodySendMode::Buffered, NONE));
    whole.next().await;
    whole.body(&vec![b' '; 100_000], true);
    let mut short = picker.call().await;
    short.head(CHAT, &[("content-length", "20")], (DUPLEX, NONE));
    short.body(b"{}", true);
    for (talk, code) in [
        (&mut said, "body_too_large"),
        (&mut sent, "body_too_large"),
        (&mut whole, "body_too_large"),
        (&mut short, "body_broken"),
    ] {
        let (status, set, body) = talk.refused().await;
        assert_eq!(body["error"]["code"], code);
        assert_eq!(status, if code == "body_broken" { 400 } else { 413 });
        assert_eq!(set["content-type"], "application/json");
        assert_eq!(set["x-hearth-decision"], format!("none;reason={code}"));
    }
    picker.end().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (_pods, addresses) = pods(1).await;
    let mut config = settings(&addresses);
    config.deadlines.request_body = ms(50);
    let picker = Picker::start(config).await;
    let mut talk = picker.call().await;
    talk.head(CHAT, &[], (DUPLEX, NONE));
    talk.body(b"{", false);
    let (status, _, body) = talk.refused().await;
    assert_eq!((status, &body["error"]["code"]), (408, &"body_too_slow".into()));
    picker.end().await;
}

#[tokio::test]
async fn errors_have_the_shape_of_their_api() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    let (status, _, body) = picker.ask(CHAT, "{").await.refused().await;
    assert_eq!((status, &body["error"]["code"]), (400, &"invalid_json".into()));
    let other = r#"{"model":"other","messages":[]}"#;
    let (status, _, body) = picker.ask(CHAT, other).await.refused().await;
    assert_eq!((status, &body["error"]["code"]), (404, &"model_not_found".into()));
    let (status, _, body) = picker.ask("/v1/messages", other).await.refused().await;
    assert_eq!((status, &body["error"]["type"]), (404, &"not_found_error".into()));
    picker.end().await;
}

#[tokio::test]
async fn clients_do_not_steer() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    let mut talk = picker.call().await;
    let steering = [
        ("x-gateway-destination-endpoint", "10.0.0.1:1"),
        ("x-gateway-destination-endpoint-subset", "10.0.0.1:1"),
        ("x-prefiller-host-port", "10.0.0.1:1"),
        ("x-data-parallel-rank", "3"),
        ("x-envoy-original-path", "/"),
        ("x-mine", "kept"),
    ];
    talk.head(CHAT, &steering, (DUPLEX, NONE));
    talk.body(chat("hi").as_bytes(), true);
    let mut forwarded = talk.forwarded().await;
    assert_eq!(forwarded.named, addresses[0].to_string());
    forwarded.removed.sort_unstable();
    let [subset, prefiller, rank] = [1, 2, 3].map(|at: usize| steering[at].0);
    assert_eq!(forwarded.removed, [rank, subset, prefiller]);
    drop(talk);
    picker.end().await;
}

#[tokio::test]
async fn a_call_that_is_cut_anywhere_leaves_nothing_behind() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    for cut_after in 0..5 {
        let mut talk = picker.call().await;
        if cut_after > 0 {
            talk.head(CHAT, &[], (DUPLEX, NONE));
        }
        if cut_after > 1 {
            talk.body(&chat("hi").as_bytes()[..5], false);
        }
        if cut_after > 2 {
            talk.body(&chat("hi").as_bytes()[5..], true);
            talk.forwarded().await;
            assert_eq!(picker.booked(), 1);
        }
        if cut_after > 3 {
            talk.forwarded_body().await;
            talk.answer("200", EVENTS);
            talk.answered().await;
            assert_eq!(picker.booked(), 1);
        }
        drop(talk);
        crate::support::at_rest(&picker.http, picker.app.admin_addr).await;
        within("the place is free", async {
            while picker.booked() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    picker.end().await;
}

#[tokio::test]
async fn who_leaves_while_it_waits_for_a_place_leaves_nothing_behind() {
    let (_pods, addresses) = pods(1).await;
    let mut config = settings(&addresses);
    config.queue.per_pod = 1;
    let picker = Picker::start(config).await;
    let waiting = async |count| {
        let (http, admin) = (&picker.http, picker.app.admin_addr);
        within("they wait", async {
            while metric(http, admin, "hearth_queue_waiting").await != count {}
        })
        .await;
    };
    let mut first = picker.ask(CHAT, &chat("hi")).await;
    first.forwarded().await;
    let (gone, mut next) =
        (picker.ask(CHAT, &chat("hi")).await, picker.ask(CHAT, &chat("hi")).await);
    waiting(2).await;
    drop(gone);
    waiting(1).await;
    drop(first);
    next.forwarded().await;
    drop(next);
    picker.end().await;
}

#[tokio::test]
async fn stopping_ends_the_calls_that_run() {
    let (_pods, addresses) = pods(1).await;
    let picker = Picker::over(&addresses).await;
    let mut talk = picker.ask(CHAT, &chat("hi")).await;
    talk.forwarded().await;
    talk.forwarded_body().await;
    let router = std::sync::Arc::clone(&picker.app.router);
    within("it stops", picker.app.stop()).await.expect("no task panicked");
    assert_eq!(talk.hears().await.expect("no error"), None);
    assert_eq!(router.bookings().totals().requests, 0);
}
