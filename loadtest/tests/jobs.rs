//! The jobs against simulated pods, behind a relay with a fixed policy: what the arithmetic says
//! must be what is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, StatusCode};
use loadtest::client::Counters;
use loadtest::jobs::{TargetOptions, cache_hit, documents, restart};
use loadtest::simulator::{Config, EngineConfig, Fleet, Simulator};

/// Which of three pods gets the n-th generation request with this body.
type Policy = fn(usize, &[u8]) -> usize;

const ROUND_ROBIN: Policy = |number, _body| number % 3;
const FIRST: Policy = |_number, _body| 0;

/// Three pods and a relay in front of them.
struct Cluster {
    fleet: Fleet,
    relay: Relay,
}

/// A reverse proxy of a few lines: policy in, `x-upstream-host` out. It ends when dropped.
struct Relay {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

struct RelayState {
    pods: Vec<SocketAddr>,
    policy: Policy,
    sent: AtomicUsize,
    http: reqwest::Client,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    async fn start(policy: Policy, engine: EngineConfig) -> Self {
        let config = Config { engine, ..Config::default() };
        let fleet = Fleet::start(3, config).await.expect("the pods start");
        let addresses = fleet.pods().iter().map(Simulator::addr).collect();
        Self { relay: Relay::start(addresses, policy).await, fleet }
    }

    fn target(&self) -> TargetOptions {
        let url = format!("http://{}", self.relay.address);
        TargetOptions { gateway_url: Some(url), ..TargetOptions::default() }
    }

    fn pod_urls(&self) -> Vec<String> {
        self.fleet.pods().iter().map(Simulator::url).collect()
    }
}

impl Relay {
    async fn start(pods: Vec<SocketAddr>, policy: Policy) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        // Another test of this process may have been first.
        let is_installed = provider.install_default().is_ok()
            || rustls::crypto::CryptoProvider::get_default().is_some();
        assert!(is_installed, "reqwest needs a provider even for plain HTTP");
        let http = reqwest::Client::builder().no_proxy().build().expect("plain HTTP");
        let state = Arc::new(RelayState { pods, policy, sent: AtomicUsize::new(0), http });
        let routes = Router::new().fallback(relay).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("the relay serves until aborted");
        });
        Self { address, task }
    }
}

async fn relay(State(state): State<Arc<RelayState>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a small body");
    let is_generation = head.uri.path().ends_with("completions");
    let number = if is_generation { state.sent.fetch_add(1, Ordering::Relaxed) } else { 0 };
    let pod = state.pods[(state.policy)(number, &body)];
    let answer = state
        .http
        .request(head.method, format!("http://{pod}{}", head.uri))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    let Ok(answer) = answer else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return response;
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    for name in ["content-type", "server"] {
        if let Some(value) = answer.headers().get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let pod = HeaderValue::from_str(&pod.to_string()).expect("an address is ASCII");
    response.headers_mut().insert("x-upstream-host", pod);
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}

async fn cache_hit(policy: Policy, options: cache_hit::Options) -> cache_hit::RunOutcome {
    let cluster = Cluster::start(policy, EngineConfig::default()).await;
    let options = cache_hit::Options {
        target: cluster.target(),
        pod_urls: cluster.pod_urls(),
        sleep_seconds: 0.0,
        ..options
    };
    let mut outcome = cache_hit::run(&options, &mut Vec::new()).await.expect("the pods answer");
    outcome.runs.pop().expect("one run")
}

#[tokio::test]
async fn one_warm_pod_scores_5776_of_5827_by_metrics_and_by_usage() {
    let run = cache_hit(FIRST, cache_hit::Options::default()).await;
    let ceiling = Counters { queries: 5_827, hits: 5_776 };
    assert_eq!((run.by_metrics, run.by_usage), (Some(ceiling), Some(ceiling)));
    assert_eq!(run.expectation.map(|(_engines, expected)| expected.ceiling), Some(ceiling));
}

#[tokio::test]
async fn round_robin_over_three_pods_scores_5392_of_5827() {
    let run = cache_hit(ROUND_ROBIN, cache_hit::Options::default()).await;
    let floor = Counters { queries: 5_827, hits: 5_392 };
    assert_eq!((run.by_metrics, run.by_usage), (Some(floor), Some(floor)));
    assert_eq!(run.expectation.map(|(_engines, expected)| expected.round_robin), Some(floor));
}

#[tokio::test]
async fn eighty_requests_score_15376_of_15477_without_streaming_too() {
    let options =
        cache_hit::Options { requests: 80, no_stream: true, ..cache_hit::Options::default() };
    let run = cache_hit(FIRST, options).await;
    assert_eq!(run.by_metrics, Some(Counters { queries: 15_477, hits: 15_376 }));
}

#[tokio::test]
async fn the_raw_prompt_cold_scores_4176_of_4770() {
    let options = cache_hit::Options { raw: true, ..cache_hit::Options::default() };
    let run = cache_hit(FIRST, options).await;
    assert_eq!(run.by_metrics, Some(Counters { queries: 4_770, hits: 4_176 }));
    let averages = run.averages;
    assert!(averages.ttft_ms.is_some() && averages.tpot_ms.is_some(), "{averages:?}");
}

#[tokio::test]
async fn no_run_beside_others_exceeds_its_ceiling() {
    let cluster = Cluster::start(FIRST, EngineConfig::default()).await;
    let options = cache_hit::Options {
        target: cluster.target(),
        pod_urls: cluster.pod_urls(),
        sleep_seconds: 0.0,
        runs: 5,
        requests: 5,
        ..cache_hit::Options::default()
    };
    let outcome = cache_hit::run(&options, &mut Vec::new()).await.expect("the pods answer");
    for run in &outcome.runs {
        let (_engines, expected) = run.expectation.expect("usage is told");
        assert_eq!(run.measured(), expected.ceiling, "{}", run.session);
    }
}

/// Documents a fifteenth of the job's own, on caches that hold twelve of them.
async fn documents(policy: Policy) -> documents::TargetOutcome {
    const DOCUMENT_TOKENS: u32 = 256;
    // Template, questions and answers of the requests in flight come on top of the documents.
    let num_blocks = 12 * (DOCUMENT_TOKENS as usize / 16 + 4) + 16;
    let engine = EngineConfig {
        num_blocks,
        prefill_tokens_per_s: 1e6,
        decode_ms: 0.1,
        ..EngineConfig::default()
    };
    let cluster = Cluster::start(policy, engine).await;
    let options = documents::Options {
        target: cluster.target(),
        document_tokens: DOCUMENT_TOKENS,
        sessions: 5,
        output_tokens: 4,
        pods: Some(3),
        ..documents::Options::default()
    };
    let mut outcome =
        documents::run_at(&options, 1, &mut Vec::new()).await.expect("the pods answer");
    assert_eq!(outcome.shortfalls, Vec::<String>::new());
    outcome.targets.pop().expect("one gateway")
}

#[tokio::test]
async fn the_documents_tell_round_robin_from_a_router_that_knows_them() {
    let spread = documents(ROUND_ROBIN).await;
    // The document's first words decide, as they do in a prefix index.
    let by_document = documents(|_number, body| {
        let start = body.windows(8).position(|window| window == b"content\"").unwrap_or(0);
        let words = body.get(start..start + 60).unwrap_or(body);
        words.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 3
    })
    .await;
    let (spread, by_document) =
        (spread.tokens.hit_rate_percent(), by_document.tokens.hit_rate_percent());
    assert!(spread < 60.0, "round-robin: {spread} %");
    assert!(by_document > spread + 20.0, "by document: {by_document} %");
}

#[tokio::test]
async fn a_restart_says_what_clients_saw_and_fails_if_they_saw_anything() {
    // The relay retries nothing: some requests meet a pod that is away.
    let cluster = Cluster::start(ROUND_ROBIN, EngineConfig::default()).await;
    let options = restart::Options {
        target: cluster.target(),
        pod_urls: cluster.pod_urls(),
        away_ms: 50,
        concurrency: 4,
        requests_away: 20,
        max_tokens: 8,
        ..restart::Options::default()
    };
    let mut out = Vec::new();
    let outcome = restart::run(&options, &mut out).await.expect("the pods come back");
    let out = String::from_utf8(out).expect("text");
    assert_eq!(out.matches("served again").count(), 3, "{out}");
    let toll = outcome.toll;
    assert!(toll.failed > 0 && toll.ok > 0 && toll.wrong_bytes == 0, "{out}");
    assert_eq!(outcome.shortfalls.len(), 1, "{out}");
}
