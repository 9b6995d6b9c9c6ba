//! `loadtest stickiness`: sessions A, B, A in a row. A session that comes back must find its pod.

use std::time::Duration;

use super::{JobError, Out, TargetOptions, below, epoch_s};
use crate::client::{Call, CallOptions, Client, Message};
use crate::report::{Tally, table};

/// Options of `loadtest stickiness`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where to send.
    #[command(flatten)]
    pub target: TargetOptions,

    /// Requests of each of the three phases.
    #[arg(long, env = "REQ_COUNT", value_name = "N", default_value_t = Self::default().requests)]
    pub requests: u32,

    /// Seconds to sleep between requests.
    #[arg(
        long,
        env = "SLEEP_SECS",
        value_name = "SECONDS",
        default_value_t = Self::default().sleep_seconds
    )]
    pub sleep_seconds: f64,

    /// Exit 1 if a phase's top pod got less than this share of it, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = Self::default().min_stickiness)]
    pub min_stickiness: f64,
}

/// What the job found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Sessions A, B and A again.
    pub phases: [Phase; 3],
    /// One sentence per gate that does not hold; empty is success.
    pub shortfalls: Vec<String>,
}

/// One session's requests in a row.
#[derive(Clone, Debug)]
pub struct Phase {
    /// The session's name.
    pub session: String,
    /// Its requests per upstream.
    pub upstreams: Tally,
    /// Why the first of its failed requests failed.
    pub first_failure: Option<String>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            target: TargetOptions::default(),
            requests: 12,
            sleep_seconds: 0.25,
            min_stickiness: 90.0,
        }
    }
}

// === impl Phase ===

impl Phase {
    fn top(&self) -> &str {
        self.upstreams.top().map_or("unknown", |(upstream, _count)| upstream)
    }
}

/// Runs the job.
///
/// # Errors
/// The gateway's URL cannot be used, or the output cannot be written. Failed requests are
/// shortfalls.
pub async fn run(options: &Options, out: Out<'_>) -> Result<Outcome, JobError> {
    if !(0.0..=3600.0).contains(&options.sleep_seconds) {
        return Err(JobError::Option("--sleep-seconds must be 0 to 3600".into()));
    }
    let client = options.target.client()?;
    let [a, b] = ["A", "B"].map(|name| format!("stickiness-{name}-{}", epoch_s()));
    writeln!(
        out,
        "Sessions A, B, A with {} requests each through {}",
        options.requests,
        client.base_url()
    )?;
    let phases = [
        phase(options, &client, &a).await,
        phase(options, &client, &b).await,
        phase(options, &client, &a).await,
    ];
    let shortfalls = judge(options, &phases);
    let rows = phases.iter().map(|phase| {
        [
            phase.session.clone(),
            phase.top().to_owned(),
            phase.upstreams.total().to_string(),
            format!("{:.1}", phase.upstreams.top_percent()),
        ]
    });
    writeln!(out, "{}", table(["session", "top upstream", "requests", "sticky %"], rows))?;
    if shortfalls.is_empty() {
        writeln!(out, "{}", verdict(&phases))?;
    }
    shortfalls.iter().try_for_each(|shortfall| writeln!(out, "❌ {shortfall}"))?;
    Ok(Outcome { phases, shortfalls })
}

async fn phase(options: &Options, client: &Client, session: &str) -> Phase {
    let mut phase =
        Phase { session: session.to_owned(), upstreams: Tally::default(), first_failure: None };
    // Each session its own conversation: a shared prompt would lead both to one pod by itself.
    let text = format!("This is {session}. {}", crate::workload::PROMPT);
    let sampling = CallOptions { max_tokens: 16, temperature: Some(0.0), ..CallOptions::default() };
    let call = Call::chat(&options.target.model_id, &[Message::user(text)], &sampling)
        .with_header("session-id", session)
        .with_header("x-session-id", session);
    for _number in 0..options.requests {
        let answer = client.send(&call, options.target.deadline()).await;
        match (&answer.failure, answer.upstream()) {
            (Some(failure), _) => {
                phase.first_failure.get_or_insert_with(|| failure.to_string());
            }
            (None, Some(upstream)) => phase.upstreams.add(upstream, 1),
            (None, None) => {
                let missing = || "the answer has no x-upstream-host header".to_owned();
                phase.first_failure.get_or_insert_with(missing);
            }
        }
        if options.sleep_seconds > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(options.sleep_seconds)).await;
        }
    }
    phase
}

/// Of sessions whose gates hold. No gate asks for two pods: an idle fleet may well put both sessions
/// on one, and a fleet of one must.
fn verdict([a, b, _again]: &[Phase; 3]) -> String {
    let pod = a.top();
    if pod == b.top() {
        return format!(
            "⚠️ Session A returned to {pod}, where session B was too: that says nothing of sessions"
        );
    }
    format!("✅ Session A returned to {pod}, with session B on {} meanwhile", b.top())
}

fn judge(options: &Options, phases: &[Phase; 3]) -> Vec<String> {
    let mut shortfalls = Vec::new();
    for phase in phases {
        if let Some(reason) = &phase.first_failure {
            shortfalls.push(format!("a request of {} failed: {reason}", phase.session));
            continue;
        }
        let what = format!("stickiness (%) of {}", phase.session);
        shortfalls.extend(below(
            &what,
            phase.upstreams.top_percent(),
            Some(options.min_stickiness),
        ));
    }
    let [first, _b, again] = phases;
    if first.top() != again.top() {
        shortfalls.push(format!(
            "session A was on {} and came back to {}",
            first.top(),
            again.top()
        ));
    }
    shortfalls
}

#[cfg(test)]
mod tests;
