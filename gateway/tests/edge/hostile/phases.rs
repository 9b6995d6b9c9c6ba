//! Clients that stop, at every point where a client can stop.

use crate::support::frames::Frames;
use crate::support::raw_pod::RawPod;
use crate::support::siege::Siege;
use crate::support::wire::{Wire, post};
use crate::support::{House, config, ms};
use tokio::io::AsyncWriteExt;

const GOOD: &str = r#"{"model":"tiny","prompt":"a","max_tokens":1}"#;

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Exit {
    Close,
    HalfClose,
    Reset,
}

async fn leave(mut wire: Wire, exit: Exit, sent: usize) {
    match exit {
        Exit::Close => {}
        Exit::HalfClose => {
            wire.socket.shutdown().await.expect("it is open");
            let answer = wire.answer().await;
            let is_fine = answer.as_ref().is_none_or(|it| it.status < 500);
            assert!(is_fine, "{answer:?} after {sent} bytes");
        }
        Exit::Reset => wire.socket.set_zero_linger().expect("it is open"),
    }
}

#[tokio::test]
async fn a_connection_cut_at_any_byte_leaves_nothing() {
    let siege = Siege::begin().await;
    let whole = post("/v1/completions", GOOD);
    let chunks = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{GOOD}\r\n0\r\n\r\n",
        GOOD.len()
    );
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for request in [whole, chunks.into_bytes(), preface] {
        for at in (0..=request.len()).step_by(3) {
            for exit in [Exit::Close, Exit::HalfClose, Exit::Reset] {
                let mut wire = Wire::connect(siege.addr()).await;
                wire.send(&request[..at]).await;
                leave(wire, exit, at).await;
            }
        }
        siege.still_serves("connections cut at every byte").await;
    }
    siege.end().await;
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_and_500_idle_connections_cost_little() {
    let siege = Siege::begin().await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(Wire::connect(siege.addr()).await);
    }
    siege.still_serves("500 idle connections").await;
    for wire in &mut idle {
        assert!(wire.is_ended().await, "closed when the time for a head is over");
    }
    drop(idle);
    let request = post("/v1/completions", GOOD);
    for at in [1, 20, request.len() - GOOD.len() - 2, request.len() - GOOD.len(), request.len() - 1]
    {
        let mut wire = Wire::connect(siege.addr()).await;
        wire.send(&request[..at]).await;
        assert_eq!(wire.answer().await.map(|it| it.status), Some(408), "after {at} bytes");
        assert!(wire.is_ended().await);
    }
    // Byte after byte: the deadline is for the whole head, not for each byte.
    let mut wire = Wire::connect(siege.addr()).await;
    let mut sent = 0;
    wire.send(b"GET /v1/models HTTP/1.1\r\nhost: h\r\na: ").await;
    while wire.send(b"x").await && sent < 10_000 {
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.answer().await.map(|it| it.status), Some(408));
    siege.end().await;
}

#[tokio::test]
async fn at_the_limit_of_connections_a_new_one_is_closed_at_once() {
    let pod = RawPod::start([crate::support::raw_pod::Reply::whole("200 OK", "{}")]).await;
    let mut config = config(&[pod.addr]);
    config.limits.connections = 2;
    let house = House::start(config).await;
    let request = post("/v1/completions", GOOD);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::connect(house.addr).await;
        wire.send(&request).await;
        assert_eq!(wire.answer().await.map(|it| it.status), Some(200));
        held.push(wire);
    }
    assert!(Wire::connect(house.addr).await.is_ended().await, "one too many");
    let refused = house.metric("hearth_errors_total{reason=\"too_many_connections\"").await;
    assert_eq!(refused, 1);
    for wire in &mut held {
        wire.send(&request).await;
        assert_eq!(wire.answer().await.map(|it| it.status), Some(200), "the others go on");
    }
    held.pop();
    let served = async {
        loop {
            let mut wire = Wire::connect(house.addr).await;
            wire.send(&request).await;
            if wire.answer().await.is_some() {
                return;
            }
        }
    };
    crate::support::within("a place is given back", served).await;
    house.end().await;
}

#[tokio::test]
async fn connections_that_carry_nothing_are_closed() {
    let pod = RawPod::start([crate::support::raw_pod::Reply::whole("200 OK", "{}")]).await;
    let mut config = config(&[pod.addr]);
    config.deadlines.keep_alive = ms(1_000);
    config.deadlines.h2_idle = ms(100);
    let house = House::start(config).await;
    let mut wire = Wire::connect(house.addr).await;
    wire.send(&post("/v1/completions", GOOD)).await;
    assert_eq!(wire.answer().await.map(|it| it.status), Some(200));
    assert!(wire.is_ended().await, "HTTP/1.1");
    let mut frames = Frames::connect(house.addr).await;
    while frames.next().await.is_some() {}
    house.end().await;
}

#[tokio::test]
async fn requests_sent_in_one_go_are_answered_in_order_and_an_end_is_announced() {
    let siege = Siege::begin().await;
    let good = post("/v1/completions", GOOD);
    let unknown = post("/v1/nowhere", "");
    let mut wire = Wire::connect(siege.addr()).await;
    wire.send(&[&good[..], &unknown, &good].concat()).await;
    for status in [200, 404, 200] {
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.has("connection: keep-alive")), (status, true));
    }
    // Behind a request that is refused comes nothing, and the answer says so.
    wire.send(&[&b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"[..], &good].concat()).await;
    let refused = wire.answer().await.expect("an answer");
    assert_eq!((refused.status, refused.has("connection: close")), (400, true));
    assert!(wire.is_ended().await);

    for (fields, stays) in [("", false), ("connection: keep-alive\r\n", true)] {
        let mut wire = Wire::connect(siege.addr()).await;
        let old = format!("GET /v1/models HTTP/1.0\r\n{fields}\r\n");
        wire.send(old.as_bytes()).await;
        let answer = wire.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.has("connection: close")), (200, !stays), "{fields}");
        if stays {
            wire.send(old.as_bytes()).await;
            assert_eq!(wire.answer().await.map(|it| it.status), Some(200));
        } else {
            assert!(wire.is_ended().await);
        }
    }
    siege.end().await;
}
