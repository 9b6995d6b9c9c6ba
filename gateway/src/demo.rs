//! `hearth demo`: simulated pods, the gateway in front, and the cache-hit job through its listener;
//! then the same job under round-robin, to compare.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use futures_util::Stream;
use loadtest::jobs::TargetOptions;
use loadtest::jobs::cache_hit::{self, Options, Outcome};
use loadtest::simulator::{self, Fleet};
use router::policy::PolicyName;

use crate::app::App;
use crate::config::{Config, Loaded, LogFormat};
use crate::drain::Signal;
use crate::telemetry::LogLevel;

/// Pods, as in the job that the numbers are compared with.
const PODS: u16 = 3;

/// The job's gates: what 30 requests give when all go to the warm pod, and all of a session to one.
const MIN_HIT_RATE: f64 = 98.8;
const MIN_STICKINESS: f64 = 100.0;

/// The settings that the demo starts from: local addresses, and a quiet log, since the terminal
/// belongs to the job.
#[must_use]
pub fn config() -> Config {
    let mut config = Config { listen: (Ipv4Addr::LOCALHOST, 8080).into(), ..Config::default() };
    config.log.format = LogFormat::Text;
    config.log.level = "warn".to_owned();
    config.log.access = false;
    // Stands for the simulated pods, whose addresses nobody knows yet.
    config.endpoints = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into()];
    config
}

/// Runs the demo: the job and the comparison, then serves until a signal, unless `once`.
///
/// # Errors
/// Anything that keeps it from its end. A job whose gates do not hold is not one: it is exit
/// code 1.
pub async fn run(
    once: bool,
    (loaded, log_level): (Loaded, LogLevel),
    (signals, hangups): (impl Stream<Item = Signal> + Unpin, impl Stream<Item = ()>),
    out: &mut (dyn Write + Send),
) -> anyhow::Result<ExitCode> {
    let policy = loaded.config.routing.policy;
    let own = &config().endpoints;
    anyhow::ensure!(
        loaded.config.endpoints == *own && !loaded.config.kubernetes.enabled,
        "the demo brings its own pods: `hearth serve` takes yours"
    );
    let mut floor = loaded.clone();
    floor.config.routing.policy = PolicyName::RoundRobin;
    floor.config.listen.set_port(0);
    floor.config.admin_listen.set_port(0);

    let (fleet, app) = start(loaded, log_level).await?;
    let outcome = job(&fleet, &app, out).await?;
    let round_robin = {
        let (fleet, app) = start(floor, LogLevel::default()).await?;
        let outcome = job(&fleet, &app, &mut std::io::sink()).await;
        app.stop().await?;
        fleet.shutdown().await;
        outcome?
    };
    compare((policy, &outcome), &round_robin, out)?;

    if once {
        app.stop().await?;
    } else {
        invite(&app, out)?;
        app.run(signals, hangups).await.context("serving")?;
    }
    fleet.shutdown().await;
    let holds = outcome.shortfalls.is_empty();
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Fresh pods, and a gateway in front that knows them.
async fn start(mut loaded: Loaded, log_level: LogLevel) -> anyhow::Result<(Fleet, App)> {
    let fleet = Fleet::start(PODS, simulator::Config::default()).await.context("simulated pods")?;
    loaded.config.endpoints = fleet.pods().iter().map(|pod| pod.addr().into()).collect();
    let app = App::start(loaded, log_level).await?;
    let all_ready =
        |snapshot: &router::pool::Snapshot| snapshot.ready().count() == usize::from(PODS);
    app.router.pool().wait_for(all_ready).await;
    Ok((fleet, app))
}

async fn job(fleet: &Fleet, app: &App, out: &mut (dyn Write + Send)) -> anyhow::Result<Outcome> {
    let gateway_url = Some(format!("http://{}", app.addr));
    let options = Options {
        target: TargetOptions { gateway_url, ..TargetOptions::default() },
        pod_urls: fleet.pods().iter().map(|pod| pod.url()).collect(),
        sleep_seconds: 0.0,
        min_hit_rate: Some(MIN_HIT_RATE),
        min_stickiness: Some(MIN_STICKINESS),
        ..Options::default()
    };
    Ok(cache_hit::run(&options, out).await?)
}

fn compare(
    measured: (PolicyName, &Outcome),
    round_robin: &Outcome,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(out, "\n=== THE SAME JOB, THE SAME KIND OF PODS, TWO POLICIES ===")?;
    for (policy, outcome) in [measured, (PolicyName::RoundRobin, round_robin)] {
        let policy = policy.name();
        let Some(run) = outcome.runs.first() else { continue };
        let counted = run.by_metrics.unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
        let share = 100.0 * counted.hits as f64 / counted.queries.max(1) as f64;
        let (hits, queries) = (counted.hits, counted.queries);
        let ttft_ms = run.averages.ttft_ms.unwrap_or_default();
        writeln!(
            out,
            "{policy:<12} {hits}/{queries} tokens from cache = {share:.1}%, TTFT {ttft_ms:.1} ms"
        )?;
    }
    for shortfall in &measured.1.shortfalls {
        writeln!(out, "GATE: {shortfall}")?;
    }
    out.flush()
}

fn invite(app: &App, out: &mut dyn Write) -> std::io::Result<()> {
    let (url, admin) = (app.addr, app.admin_addr);
    let model = simulator::Config::default().model;
    writeln!(
        out,
        "
Hearth serves at http://{url} until Ctrl-C. Try:
  curl http://{url}/v1/models
  curl -i http://{url}/v1/chat/completions -H 'content-type: application/json' -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello! What is 2+2?\"}}],\"max_tokens\":16}}'
  curl -N http://{url}/v1/chat/completions -H 'content-type: application/json' -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Tell me a story.\"}}],\"max_tokens\":64,\"stream\":true}}'
Metrics: http://{admin}/metrics   Pods: http://{admin}/pool"
    )?;
    out.flush()
}
