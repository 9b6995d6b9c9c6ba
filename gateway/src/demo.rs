//! `hearth demo`: simulated pods, the gateway in front, and the cache-hit job through its listener;
//! then the same job under round-robin, to compare.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use futures_util::Stream;
use loadtest::jobs::TargetOptions;
use loadtest::jobs::cache_hit::{self, Options, Outcome};
use loadtest::simulator::{self, Fleet, assets};
use router::feed::kv_events::Trust;
use router::policy::PolicyName;
use tokio::time::{sleep, timeout};

use crate::app::{self, App};
use crate::config::{Config, Loaded, LogFormat};
use crate::drain::Signal;
use crate::telemetry::LogLevel;

/// Pods, as in the job that the numbers are compared with.
const PODS: u16 = 3;

/// The job's gates: what 30 requests give when all go to the warm pod, and all of a session to one.
const MIN_HIT_RATE: f64 = 98.8;
const MIN_STICKINESS: f64 = 100.0;

/// How long to wait until every pod's events are heard, and how often to look: it takes some 50 ms.
/// Without them the job runs too, on what pods were sent.
const HEARD_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What to ask by hand: long enough that its second answer says `matched=` of more than the chat
/// template's first tokens.
const QUESTION: &str = "A gateway that knows which of its pods holds a prompt in cache can spare that \
     pod the work of reading it again. Tell me in one sentence why that matters.";

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

/// Fresh pods, and a gateway in front that knows them, and their model's tokens.
async fn start(mut loaded: Loaded, log_level: LogLevel) -> anyhow::Result<(Fleet, App)> {
    let pods = simulator::Config::default();
    let mut tokenizers = app::tokenizers(&loaded.config)?;
    tokenizers.insert(&pods.model, assets::tokenizer().context("the embedded tokenizer")?);
    let fleet = Fleet::start(PODS, pods).await.context("simulated pods")?;
    loaded.config.endpoints = fleet.pods().iter().map(|pod| pod.addr().into()).collect();
    let app = App::start_with(loaded, tokenizers, log_level).await?;
    let all_ready =
        |snapshot: &router::pool::Snapshot| snapshot.ready().count() == usize::from(PODS);
    app.router.pool().wait_for(all_ready).await;
    if timeout(HEARD_WITHIN, heard(&app)).await.is_err() {
        tracing::warn!("not every pod's KV events are heard: decisions may be approximate");
    }
    Ok((fleet, app))
}

/// Waits until what every pod tells can be believed.
async fn heard(app: &App) {
    loop {
        let snapshot = app.router.pool().snapshot();
        if snapshot.endpoints.iter().all(|pod| pod.kv_events.trust() == Trust::Exact) {
            return;
        }
        drop(snapshot);
        sleep(LOOK_EVERY).await;
    }
}

async fn job(fleet: &Fleet, app: &App, out: &mut (dyn Write + Send)) -> anyhow::Result<Outcome> {
    let gateway_url = Some(format!("http://{}", app.addr));
    let options = Options {
        target: TargetOptions { gateway_url, ..TargetOptions::default() },
        pod_urls: fleet.pods().iter().map(|pod| pod.url()).collect(),
        sleep_seconds: 0.0,
        brief: true,
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
    writeln!(out, "\n=== THE SAME JOB ON FRESH PODS, UNDER TWO POLICIES ===")?;
    for (policy, outcome) in [measured, (PolicyName::RoundRobin, round_robin)] {
        let policy = policy.name();
        let Some(run) = outcome.runs.first() else { continue };
        let counted = run.measured();
        let (computed, share) = (counted.queries - counted.hits, counted.hit_rate_percent());
        // No times: so short a prompt takes the simulated model no longer than this machine's jitter.
        writeln!(
            out,
            "{policy:<12} computed {computed:>3} of {} prompt tokens: {share:.1}% came from cache",
            counted.queries
        )?;
    }
    out.flush()
}

fn invite(app: &App, out: &mut dyn Write) -> std::io::Result<()> {
    let (url, admin) = (app.addr, app.admin_addr);
    writeln!(
        out,
        "
Hearth serves at http://{url} until Ctrl-C. Ask twice: x-hearth-decision says how much was cached.
  curl -i http://{url}/v1/chat/completions -H 'content-type: application/json' -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"{QUESTION}\"}}],\"max_tokens\":16}}'
  curl -N http://{url}/v1/chat/completions -H 'content-type: application/json' -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Tell me a story.\"}}],\"max_tokens\":64,\"stream\":true}}'
  curl http://{url}/v1/models
Metrics: http://{admin}/metrics   Pods: http://{admin}/pool   Why a pod was chosen: http://{admin}/why/REQUEST-ID"
    )?;
    out.flush()
}
