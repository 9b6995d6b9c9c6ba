//! The cheapest pod there can be: fixed answers, no tokens, no engine.
//!
//! A bench of proxies wants upstreams that cost next to nothing and answer in vLLM's shapes. The
//! request chooses the answer: `"stream":true` in its body gives [`CHUNKS`] SSE events, each
//! written on its own as vLLM writes them, one every `x-bench-pace-ms` if that header came along.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::jobs::Out;

/// Content events of one stream, before the usage event and `[DONE]`.
pub const CHUNKS: u32 = 200;
/// The one model that is served.
pub const MODEL: &str = "bench";
/// Milliseconds between two events of a stream; absent: as fast as they are taken.
pub const PACE_HEADER: &str = "x-bench-pace-ms";

const ANSWER: &str = r#"{"id":"chatcmpl-b0","object":"chat.completion","created":1795514086,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog and runs on.","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0-bench","usage":{"prompt_tokens":250,"total_tokens":266,"completion_tokens":16,"prompt_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null}"#;
const CHUNK: &str = "data: {\"id\":\"chatcmpl-b0\",\"object\":\"chat.completion.chunk\",\"created\":1795514086,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n";
const LAST: &str = "data: {\"id\":\"chatcmpl-b0\",\"object\":\"chat.completion.chunk\",\"created\":1795514086,\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":250,\"total_tokens\":450,\"completion_tokens\":200}}\n\ndata: [DONE]\n\n";
const MODELS: &str = r#"{"object":"list","data":[{"id":"bench","object":"model","created":1795514086,"owned_by":"vllm","root":"bench","parent":null,"max_model_len":1000000}]}"#;
const METRICS: &str = "vllm:num_requests_running{engine=\"0\",model_name=\"bench\"} 0.0\nvllm:num_requests_waiting{engine=\"0\",model_name=\"bench\"} 0.0\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"bench\"} 0.0\nvllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"100000\"} 1.0\n";

/// `loadtest upstream`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many pods to be, each on a free loopback port.
    #[arg(long, default_value_t = 4)]
    pods: usize,
}

/// Serves until the task is dropped; writes one line with the bound addresses, by commas.
pub async fn run(args: &Args, out: Out<'_>) -> anyhow::Result<()> {
    let mut listeners = Vec::new();
    for _ in 0..args.pods {
        listeners.push(TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?);
    }
    let addresses: Result<Vec<_>, _> = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.to_string()))
        .collect();
    writeln!(out, "{}", addresses?.join(","))?;
    out.flush()?;
    let mut pods: JoinSet<_> = listeners.into_iter().map(serve).collect();
    while let Some(ended) = pods.join_next().await {
        ended??;
    }
    Ok(())
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                socket.set_nodelay(true)?;
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(socket), service_fn(answer));
                connections.spawn(connection);
            }
            // A peer that resets is a peer that has finished with us.
            Some(_) = connections.join_next() => {}
        }
    }
}

type Body = Either<Full<Bytes>, Events>;
type Events = StreamBody<std::pin::Pin<Box<dyn Stream<Item = Event> + Send>>>;
type Event = Result<Frame<Bytes>, Infallible>;

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let pace = request.headers().get(PACE_HEADER).and_then(pace);
    let path = request.uri().path().to_owned();
    if request.method() != http::Method::POST {
        return Ok(match path.as_str() {
            "/health" => whole("text/plain", ""),
            "/v1/models" => whole("application/json", MODELS),
            "/metrics" => whole("text/plain; version=0.0.4", METRICS),
            _ => not_found(),
        });
    }
    // What a stock vLLM refuses (`/render`) is no answer, or a router would take it for one.
    if !matches!(path.as_str(), "/v1/chat/completions" | "/v1/completions") {
        return Ok(not_found());
    }
    if streamed(request.into_body()).await? {
        let mut response = Response::new(Either::Right(events(pace)));
        let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        return Ok(response);
    }
    Ok(whole("application/json", ANSWER))
}

fn pace(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.parse().ok().map(Duration::from_millis)
}

/// Reads the body to its end; says whether its first frame asked for a stream.
async fn streamed(mut body: Incoming) -> Result<bool, hyper::Error> {
    const ASKED: &[u8] = b"\"stream\":true";
    let (mut first, mut streamed) = (true, false);
    while let Some(frame) = body.frame().await {
        if let (true, Ok(data)) = (first, frame?.into_data()) {
            first = false;
            let head = &data[..data.len().min(256)];
            streamed = head.windows(ASKED.len()).any(|window| window == ASKED);
        }
    }
    Ok(streamed)
}

fn whole(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn not_found() -> Response<Body> {
    let mut response = whole("application/json", r#"{"detail":"Not Found"}"#);
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}

/// [`CHUNKS`] events and the end. Before each of them the task waits or yields, so that hyper writes
/// each by itself and whoever reads decides how many are joined.
fn events(pace: Option<Duration>) -> Events {
    let ticks = pace.map(|pace| {
        let mut ticks = interval_at(Instant::now() + pace, pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let sent = stream::unfold((0, ticks), async |(sent, mut ticks)| {
        if sent > CHUNKS {
            return None;
        }
        match &mut ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => tokio::task::yield_now().await,
        }
        let text = if sent == CHUNKS { LAST } else { CHUNK };
        Some((Ok(Frame::data(Bytes::from_static(text.as_bytes()))), (sent + 1, ticks)))
    });
    StreamBody::new(Box::pin(sent))
}
