//! What all requests together may hold: bodies count when they have come, not when they are promised.

use http::StatusCode;

use crate::support::echo::Echo;
use crate::support::wire::Wire;
use crate::support::{House, config, within};

const MIB: usize = 1 << 20;
const GOOD: &str = r#"{"model":"tiny","prompt":"a"}"#;

/// A request that promises a body of 1 MiB.
async fn promise(house: &House) -> Wire {
    let mut wire = Wire::connect(house.addr).await;
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: {MIB}\r\n\r\n");
    wire.send(head.as_bytes()).await;
    wire
}

#[tokio::test]
async fn promised_bodies_hold_nothing_and_the_metric_is_what_is_held() {
    let echo = Echo::start().await;
    let mut config = config(&[echo.addr]);
    config.limits.body = "1MiB".parse().expect("a size");
    config.limits.bodies_held = "1MiB".parse().expect("a size");
    let house = House::start(config).await;
    let held = || house.metric("hearth_request_body_bytes_held");

    let mut promised = Vec::new();
    for _ in 0..8 {
        promised.push(promise(&house).await);
    }
    let in_flight = async { while house.metric("hearth_requests_in_flight").await < 8 {} };
    within("all are being read", in_flight).await;
    assert_eq!(held().await, 0);
    assert_eq!(house.post("/v1/completions", GOOD).await.status, StatusCode::OK);

    promised[0].send(&vec![b' '; 600_000]).await;
    within("what has come is counted", async { while held().await < 600_000 {} }).await;
    promised[1].send(&vec![b' '; 600_000]).await;
    let refused = promised[1].answer().await.expect("an answer");
    assert_eq!((refused.status, refused.code().as_str()), (503, "too_many_bodies"));
    assert_eq!(held().await, 600_000, "what was refused is not held");
    assert_eq!(house.post("/v1/completions", GOOD).await.status, StatusCode::OK);
    drop(promised);
    house.end().await;
}
