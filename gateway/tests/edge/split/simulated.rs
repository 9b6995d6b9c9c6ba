//! Simulated pairs of every connector: their answers are a function of the prompt, and of the blocks
//! that were read for it.
//!
//! SGLang's are not here: its prefill server samples one token whatever the body says, and the
//! simulated one does not.

use loadtest::simulator::{Connector, Simulator, TransferConfig};

use super::*;
use crate::support::{fast_pod, simulate};

async fn pod(connector: Option<Connector>) -> Simulator {
    let transfer = TransferConfig { connector, ..TransferConfig::default() };
    simulate(loadtest::simulator::Config { transfer, ..fast_pod() }).await
}

fn text(answer: &Answer) -> String {
    answer.json()["choices"][0]["text"].as_str().expect("a text").to_owned()
}

#[tokio::test]
async fn a_pairs_answer_is_that_of_one_pod() {
    for (name, connector) in [
        (ConnectorName::Nixl, Connector::Nixl),
        (ConnectorName::Mooncake, Connector::Mooncake),
        (ConnectorName::Offloading, Connector::Offload),
    ] {
        let (prefill, decode) = (pod(Some(connector)).await, pod(Some(connector)).await);
        let alone = pod(None).await;
        let endpoint = |pod: &Simulator, role| StaticEndpoint::from(pod.addr()).with_role(role);
        let pods = [endpoint(&prefill, Role::Prefill), endpoint(&decode, Role::Decode)];
        let mut config = settings(pods);
        config.split.connector = name;
        config.split.port = prefill.side_channel().map(|addr| addr.port());
        let house = House::start(config).await;
        for n in 0..3 {
            let body = plain().replace("word", &format!("w{n}rd"));
            let answer = ask(&house, &body).await;
            assert_eq!(answer.status, StatusCode::OK, "{name:?}: {answer:?}");
            assert_eq!(told(&answer), by(prefill.addr()), "{name:?}");
            let path = "/v1/completions";
            let want = house.client.send(alone.addr(), http::Method::POST, path, body).await;
            assert_eq!(text(&answer), text(&want), "{name:?}");
        }
        let failures = house.metric("hearth_split_failures_total").await;
        assert_eq!((failures, prefill.leases()), (0, 0), "{name:?}: nothing is kept");
        house.end().await;
    }
}
