//! A data-parallel pod: one address, two engines with caches and events of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use loadtest::simulator::Simulator;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::predictions::{exact, prompt};
use crate::support::client::{self, Client, post, whole};
use crate::support::{House, config, fast_pod, simulate};

/// Two simulated engines behind one port, as vLLM's `--data-parallel-size 2` has them: a request goes to
/// the rank that it names.
struct Ranks {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<HeaderMap>>>,
    engines: [Simulator; 2],
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Front {
    engines: [SocketAddr; 2],
    asked: Arc<Mutex<Vec<HeaderMap>>>,
    client: Arc<Client>,
}

// === impl Ranks ===

impl Ranks {
    async fn start() -> Self {
        let mut config = fast_pod();
        config.engine.kv_events = true;
        let engines = [simulate(config.clone()).await, simulate(config).await];
        let asked = Arc::<Mutex<Vec<HeaderMap>>>::default();
        let front = Front {
            engines: [engines[0].addr(), engines[1].addr()],
            asked: Arc::clone(&asked),
            client: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let app = Router::new().fallback(pass).with_state(front);
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { addr, asked, engines, _server: server }
    }

    /// The ranks that requests named, in order.
    fn named(&self) -> Vec<String> {
        let rank = |head: &HeaderMap| {
            let all: Vec<_> = head.get_all("x-data-parallel-rank").iter().collect();
            assert_eq!(all.len(), 1, "{head:?}");
            all[0].to_str().expect("it is text").to_owned()
        };
        self.asked.lock().iter().map(rank).collect()
    }
}

async fn pass(State(front): State<Front>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/kv_event_sources" {
        let [first, second] = [front.sources(0).await, front.sources(1).await];
        return axum::Json(json!({"0": first, "1": second})).into_response();
    }
    let rank = head.headers.get("x-data-parallel-rank").map(|rank| rank.as_bytes() == b"1");
    if path.starts_with("/v1/completions") {
        front.asked.lock().push(head.headers);
    }
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a small body");
    front.send(usize::from(rank.unwrap_or(false)), head.method, &path, body).await
}

// === impl Front ===

impl Front {
    async fn sources(&self, rank: usize) -> Value {
        let path = "/kv_event_sources";
        let reply = self.client.send(self.engines[rank], http::Method::GET, path, "").await;
        reply.json()["0"].clone()
    }

    async fn send(&self, rank: usize, method: http::Method, path: &str, body: Bytes) -> Response {
        let client::Reply { status, headers, body } =
            self.client.send(self.engines[rank], method, path, body).await;
        let mut kind = HeaderMap::new();
        kind.extend(headers.get(header::CONTENT_TYPE).map(|it| (header::CONTENT_TYPE, it.clone())));
        (status, kind, body).into_response()
    }
}

#[tokio::test]
async fn the_rank_that_holds_the_prompt_is_named_and_hit() {
    let pod = Ranks::start().await;
    let house = House::start_unready(config(&[pod.addr])).await;
    house.ready(2).await;
    exact(&house, 2).await;
    let ask = async |first: usize| {
        let mut request = post(house.addr, "/v1/completions", whole(prompt(first, 200, 1)));
        request.headers_mut().insert("x-data-parallel-rank", "7".parse().expect("a value"));
        let reply = house.client.request(request).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        let decision = reply.header("x-hearth-decision").to_owned();
        let rank = decision.split(";rank=").nth(1).expect("it names the rank").to_owned();
        (rank, reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64())
    };
    let mut first = Vec::new();
    for conversation in 0..6 {
        first.push(ask(1_000 * conversation).await.0);
    }
    assert!(first.contains(&"0".to_owned()) && first.contains(&"1".to_owned()), "{first:?}");
    for (conversation, rank) in first.iter().enumerate() {
        assert_eq!(ask(1_000 * conversation).await, (rank.clone(), Some(192)), "{conversation}");
    }
    let twice = [first.clone(), first].concat();
    assert_eq!(pod.named(), twice, "each request names the rank that was chosen");
    house.end().await;
    for engine in pod.engines {
        engine.shutdown().await;
    }
}
