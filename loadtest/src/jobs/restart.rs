//! `loadtest restart`: rolls pods under load, one after another, and prints what clients saw.
//!
//! Nothing here waits for a fixed time: a pod goes when requests run, is away for a number of
//! requests, and the next one follows when it answers `/health` and the gateway sends to it again.

mod load;
mod options;
mod toll;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::{interval, timeout};

use self::load::Load;
pub use self::{
    options::{How, Options},
    toll::Toll,
};
use super::{JobError, Out};
use crate::client::Client;
use crate::report::table;

/// What the job found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What clients saw.
    pub toll: Toll,
    /// One sentence per gate that does not hold; empty is success.
    pub shortfalls: Vec<String>,
}

/// How often a pod that is away is asked whether it is back.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the job.
///
/// # Errors
/// A URL cannot be used, the gateway does not answer before anything has happened, a pod does not
/// come back, or the output cannot be written. What clients saw is an outcome.
pub async fn run(options: &Options, out: Out<'_>) -> Result<Outcome, JobError> {
    let pods = options.pod_clients()?;
    if pods.is_empty() {
        return Err(JobError::Option("--pod-urls names no pod to restart".into()));
    }
    let gateway = options.target.client()?;
    let load = Load::start(options, &gateway).await?;
    writeln!(
        out,
        "Restarting {} pods behind {} under {} concurrent streams",
        pods.len(),
        gateway.base_url(),
        options.concurrency
    )?;
    for pod in &pods {
        let rolled = roll(options, &load, pod);
        let line = timeout(options.target.deadline(), rolled).await.map_err(|_late| {
            JobError::Option(format!("{} does not come back", pod.base_url()))
        })??;
        writeln!(out, "{line}")?;
    }
    let toll = load.end().await?;
    let rows = toll.rows().map(|(what, count)| [what.to_owned(), count.to_string()]);
    writeln!(out, "{}", table(["clients saw", "requests"], rows))?;
    for example in toll.examples() {
        writeln!(out, "  {example}")?;
    }
    let mut shortfalls = Vec::new();
    if toll.visible() > options.max_visible {
        let (seen, allowed) = (toll.visible(), options.max_visible);
        shortfalls.push(format!("{seen} requests saw a restart, more than the allowed {allowed}"));
    }
    match shortfalls.first() {
        None => writeln!(out, "✅ {} of {} requests were whole", toll.whole(), toll.total())?,
        Some(shortfall) => writeln!(out, "❌ {shortfall}")?,
    }
    Ok(Outcome { toll, shortfalls })
}

/// One pod goes and comes back; says how long that took.
async fn roll(options: &Options, load: &Load, pod: &Client) -> Result<String, JobError> {
    let gone = Instant::now();
    send_away(options, pod).await?;
    let before = load.count();
    load.until(|count| *count >= before + options.requests_away).await;
    let mut looks = interval(LOOK_EVERY);
    while pod.get("/health").await.is_err() {
        looks.tick().await;
    }
    let back = Instant::now();
    load.until_served_by(pod.authority()).await;
    Ok(format!(
        "{}: away for {} ms, served again after {} ms more",
        pod.base_url(),
        (back - gone).as_millis(),
        back.elapsed().as_millis()
    ))
}

async fn send_away(options: &Options, pod: &Client) -> Result<(), JobError> {
    if let Some(command) = &options.command {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("POD_URL", pod.base_url()).env("POD", pod.authority());
        let status = tokio::task::spawn_blocking(move || shell.status()).await??;
        if status.success() {
            return Ok(());
        }
        return Err(JobError::Option(format!("--command failed for {}: {status}", pod.base_url())));
    }
    let fault = match options.how {
        How::Kill => "down",
        How::Terminate => "freeze",
        How::EngineDeath => "engine_death",
    };
    let fault = json!({"fault": fault, "for_ms": options.away_ms});
    // A pod that dies does not answer, and one that says 204 has nothing to say.
    if let Err(error) = pod.post_json("/sim/fault", &fault).await {
        tracing::debug!(%error, "the pod has heard, or is gone: what comes will tell");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
