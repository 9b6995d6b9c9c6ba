//! A closed loop that costs little itself: `connections` clients, each asking again as soon as it
//! has its answer, on one thread.
//!
//! [`run`] is `loadtest saturate`, the load under the bench beside other proxies. Bodies are
//! realistic multi-turn chats of a wanted size, a few dozen different ones in turn. With `--hold`
//! it opens its connections (or streams), says so, and keeps them until it is ended.

mod bodies;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::jobs::Out;
use crate::upstream::PACE_HEADER;

/// `loadtest saturate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where to send it: `ip:port`.
    #[arg(long)]
    target: String,
    /// Requests in flight at once.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests in all.
    #[arg(long, default_value_t = 1000)]
    requests: usize,
    /// Instead: as many as begin within so many seconds.
    #[arg(long, conflicts_with = "requests")]
    seconds: Option<f64>,
    /// Size of a body in KiB.
    #[arg(long, default_value_t = 1)]
    body_kib: usize,
    /// Ask for a stream.
    #[arg(long)]
    stream: bool,
    /// Ask the upstream for one event every so many milliseconds.
    #[arg(long)]
    pace_ms: Option<u64>,
    /// Keep every connection, after its first bytes, until this is ended.
    #[arg(long)]
    hold: bool,
}

/// What one run saw: one JSON line.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    errors: u64,
    elapsed_s: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    max_us: u64,
    /// Reads of a body that gave data: how much whoever sits in between has joined.
    frames: u64,
}

#[derive(Debug)]
struct Tally {
    latency_us: Histogram<u64>,
    errors: u64,
    frames: u64,
}

// === impl Tally ===

impl Tally {
    /// Microseconds, up to ten minutes, to three digits.
    fn new() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Self { latency_us, errors: 0, frames: 0 })
    }

    fn record(&mut self, took: Duration, outcome: &Result<u64, anyhow::Error>) {
        match outcome {
            Ok(frames) => {
                let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                self.latency_us.saturating_record(took_us.max(1));
                self.frames += frames;
            }
            Err(_) => self.errors += 1,
        }
    }

    fn report(&self, elapsed: Duration) -> Report {
        Report {
            requests: self.latency_us.len(),
            errors: self.errors,
            elapsed_s: elapsed.as_secs_f64(),
            p50_us: self.latency_us.value_at_quantile(0.5),
            p90_us: self.latency_us.value_at_quantile(0.9),
            p99_us: self.latency_us.value_at_quantile(0.99),
            max_us: self.latency_us.max(),
            frames: self.frames,
        }
    }
}

/// Runs the load and writes one JSON line; fails only if it could not be run at all.
pub async fn run(args: &Args, out: Out<'_>) -> anyhow::Result<()> {
    ensure!(args.connections > 0, "--connections must be at least 1");
    let bodies = bodies::chats(args.body_kib * 1024, args.stream);
    if args.hold {
        return hold(args, &bodies, out).await;
    }
    let began = Instant::now();
    let seconds = args.seconds.map(Duration::try_from_secs_f64).transpose()?;
    let end = seconds.map(|seconds| began + seconds);
    let mut workers = JoinSet::new();
    for number in 0..args.connections {
        let share = match end {
            Some(_) => usize::MAX,
            None => {
                args.requests / args.connections
                    + usize::from(number < args.requests % args.connections)
            }
        };
        workers.spawn(work(args.clone(), bodies.clone(), number, share, end));
    }
    let mut all = Tally::new()?;
    while let Some(worker) = workers.join_next().await {
        let tally = worker??;
        all.latency_us.add(&tally.latency_us)?;
        all.errors += tally.errors;
        all.frames += tally.frames;
    }
    writeln!(out, "{}", serde_json::to_string(&all.report(began.elapsed()))?)?;
    Ok(())
}

async fn work(
    args: Args,
    bodies: Vec<Bytes>,
    number: usize,
    share: usize,
    end: Option<Instant>,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new()?;
    let mut connection = None;
    for (turn, body) in bodies.iter().cycle().skip(number).take(share).enumerate() {
        let began = Instant::now();
        if end.is_some_and(|end| began >= end) {
            break;
        }
        let outcome = exchange(&args, &mut connection, body.clone()).await;
        tally.record(began.elapsed(), &outcome);
        if outcome.is_err() {
            connection = None;
            ensure!(turn > 0 || tally.errors < 2, "{}: {outcome:?}", args.target);
        }
    }
    Ok(tally)
}

/// One connection, and the task that drives it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<Result<(), hyper::Error>>,
}

async fn connect(target: &str) -> anyhow::Result<Connection> {
    let socket = TcpStream::connect(target).await.with_context(|| format!("connect {target}"))?;
    socket.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(socket)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    Ok(Connection { sender, _driver: driver })
}

async fn send(
    args: &Args,
    connection: &mut Option<Connection>,
    body: Bytes,
) -> anyhow::Result<hyper::body::Incoming> {
    let usable = connection.as_ref().is_some_and(|open| !open.sender.is_closed());
    if !usable {
        *connection = Some(connect(&args.target).await?);
    }
    let open = connection.as_mut().context("connected above")?;
    open.sender.ready().await?;
    let mut request = Request::post("/v1/chat/completions")
        .header(header::HOST, &args.target)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "loadtest")
        .header(header::AUTHORIZATION, "Bearer sk-bench")
        .body(Full::new(body))?;
    if let Some(pace_ms) = args.pace_ms {
        request.headers_mut().insert(PACE_HEADER, HeaderValue::from(pace_ms));
    }
    let response = open.sender.send_request(request).await?;
    ensure!(response.status().is_success(), "HTTP {}", response.status());
    Ok(response.into_body())
}

/// Sends one request, reads its whole answer and counts the reads.
async fn exchange(
    args: &Args,
    connection: &mut Option<Connection>,
    body: Bytes,
) -> anyhow::Result<u64> {
    let mut answer = send(args, connection, body).await?;
    let mut frames = 0;
    while let Some(frame) = answer.frame().await {
        frames += u64::from(frame?.is_data());
    }
    Ok(frames)
}

/// So many of the held connections are opened at once: what a crowd takes while it is served is no
/// cost of keeping it.
const OPENING: usize = 16;

/// Opens everything, writes `held N`, and keeps it until the caller drops this or one breaks.
async fn hold(args: &Args, bodies: &[Bytes], out: Out<'_>) -> anyhow::Result<()> {
    let (opened, mut begun) = mpsc::channel(args.connections);
    let mut held = JoinSet::new();
    let places = Arc::new(Semaphore::new(OPENING));
    for body in bodies.iter().cycle().take(args.connections) {
        let (args, body, opened) = (args.clone(), body.clone(), opened.clone());
        let places = Arc::clone(&places);
        held.spawn(async move {
            let mut connection = None;
            let place = places.acquire().await?;
            let mut answer = send(&args, &mut connection, body).await?;
            answer.frame().await.context("an empty answer")??;
            drop(place);
            opened.send(()).await?;
            while let Some(frame) = answer.frame().await {
                frame?;
            }
            std::future::pending::<anyhow::Result<()>>().await
        });
    }
    for _ in 0..args.connections {
        tokio::select! {
            _ = begun.recv() => {}
            Some(ended) = held.join_next() => ended??,
        }
    }
    writeln!(out, "held {}", args.connections)?;
    out.flush()?;
    while let Some(ended) = held.join_next().await {
        ended??;
    }
    Ok(())
}
