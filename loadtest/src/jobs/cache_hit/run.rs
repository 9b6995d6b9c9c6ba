//! One run, step by step, in the order of the pipeline that it replaces.

use std::time::Duration;

use super::super::{JobError, Out};
use super::outcome::{Ledger, RunOutcome};
use super::system::System;
use super::traffic::{self, Names};
use super::{Engines, Expectation, HeldBefore, Options, Traffic, expectation, print};
use crate::client::{Client, CounterSource, Counters, PodCounters, Usage};

/// Attempts of the chat health check, as far apart as the requests.
const HEALTH_ATTEMPTS: u32 = 3;

/// Everything one run needs; it owns it, for runs go side by side.
#[derive(Debug)]
pub(super) struct Run {
    options: Options,
    client: Client,
    pods: Vec<Client>,
    counters: Option<CounterSource>,
    names: Names,
}

// === impl Run ===

impl Run {
    /// A run; `number` tells it from others beside it, whose tokens are in the same counters: such
    /// a run reads its answers' usage only.
    pub(super) fn new(
        options: &Options,
        epoch_s: u64,
        number: Option<u32>,
    ) -> Result<Self, JobError> {
        let counters = if number.is_none() { options.counter_source()? } else { None };
        Ok(Self {
            client: options.target.client()?,
            pods: options.pod_clients()?,
            counters,
            names: Names::new(epoch_s, number),
            options: options.clone(),
        })
    }

    /// Runs and prints.
    pub(super) async fn execute(self, out: Out<'_>) -> Result<RunOutcome, JobError> {
        let system = System::ask(&self.pods).await?;
        print::system(out, &system)?;
        print::opening(out, self.client.base_url(), &self.names.test_id)?;
        print::configuration(out, &system)?;
        self.warm_up(out).await?;

        let baseline = self.read_counters().await?;
        print::baseline(out, baseline.as_ref().map(|read| read.total))?;
        let mut ledger = Ledger::default();
        let health = self.check_health(out, &mut ledger).await?;
        self.measure(out, &mut ledger).await?;
        let last = self.read_counters().await?;

        let session = &self.names.session;
        if let Some(file) = &self.options.session_id_file {
            tokio::fs::write(file, session).await?;
        }
        let deltas = pod_deltas(baseline.as_ref(), last.as_ref());
        print::per_pod(out, deltas.as_deref(), &ledger.tokens_by_upstream)?;
        print::session_stickiness(out, session, &ledger.upstreams)?;
        print::averages(out, ledger.averages(), !self.options.no_stream)?;
        let expectation = self.expectation(&ledger, health, &system);
        let outcome = self.outcome(ledger, baseline, last, expectation);
        print::aggregate(out, &outcome)?;
        print::analysis(out, &self.options, &outcome)?;
        print::results(out, &outcome)?;
        print::arithmetic(out, &self.options, &outcome)?;
        self.routing_test(out).await?;
        print::summary(out, self.client.base_url(), &outcome)?;
        print::status(out, &system, &outcome)?;
        Ok(outcome)
    }

    async fn warm_up(&self, out: Out<'_>) -> Result<(), JobError> {
        let warmups = self.options.warmups();
        writeln!(out, "=== CACHE PERFORMANCE TEST ===")?;
        writeln!(out, "-- Optional warm-up: {warmups} requests --")?;
        let call = traffic::warmup(&self.options, &self.names);
        for number in 1..=warmups {
            let session = &self.names.warmup_session;
            writeln!(out, "  Warm-up request {number} (session: {session})...")?;
            let answer = self.client.send(&call, self.options.target.deadline()).await;
            if let Some(failure) = answer.failure {
                writeln!(out, "    ⚠️  it failed: {failure}")?;
            }
            self.pause().await;
        }
        Ok(())
    }

    /// Asks for the models and one short answer; returns the answer's usage. Its tokens are in the
    /// counters' deltas, as they were in the pipeline's.
    async fn check_health(
        &self,
        out: Out<'_>,
        ledger: &mut Ledger,
    ) -> Result<Option<Usage>, JobError> {
        const CHAT: &str = "/v1/chat/completions";
        writeln!(out, "=== GATEWAY HEALTH CHECK ===")?;
        let models = match self.client.get("/v1/models").await {
            Ok(_list) => "200".to_owned(),
            Err(crate::client::ClientError::GetStatus { status, .. }) => {
                status.as_u16().to_string()
            }
            Err(error) => error.to_string(),
        };
        writeln!(out, "/v1/models HTTP status: {models}")?;
        if models != "200" {
            writeln!(out, "⚠️ /v1/models returned {models} (expected 200). Continuing.")?;
        }
        if self.options.raw {
            writeln!(out, "{CHAT} HTTP status: not asked (--raw)")?;
            return Ok(None);
        }
        let mut got = String::new();
        for _attempt in 0..HEALTH_ATTEMPTS {
            let call = traffic::health(&self.options);
            let answer = self.client.send(&call, self.options.target.deadline()).await;
            let Some(failure) = answer.failure else {
                writeln!(out, "{CHAT} HTTP status: 200")?;
                ledger.count_usage(answer.usage);
                return Ok(answer.usage);
            };
            got = answer.status.map_or(failure.to_string(), |status| status.as_u16().to_string());
            self.pause().await;
        }
        writeln!(out, "{CHAT} HTTP status: {got}")?;
        writeln!(out, "❌ {CHAT} did not return 200 (got {got}) — failing fast")?;
        Err(JobError::Unhealthy { path: CHAT, got, gateway: self.client.base_url().to_owned() })
    }

    async fn measure(&self, out: Out<'_>, ledger: &mut Ledger) -> Result<(), JobError> {
        print::measuring(out, &self.options, &self.names.session)?;
        let call = traffic::measured(&self.options, &self.names);
        let (session, requests) = (&self.names.session, self.options.requests);
        for number in 1..=requests {
            let is_shown = number == 1 || !self.options.brief;
            if is_shown {
                writeln!(out, "  Enhanced cache test request {number} (session: {session})...")?;
            }
            let answer = self.client.send(&call, self.options.target.deadline()).await;
            if is_shown {
                print::answer(out, &answer)?;
            }
            ledger.count(&answer);
            self.pause().await;
        }
        if self.options.brief && requests > 1 {
            writeln!(out, "  ... and {} more", requests - 1)?;
        }
        Ok(())
    }

    /// Five questions outside the session, after the counters were read.
    async fn routing_test(&self, out: Out<'_>) -> Result<(), JobError> {
        writeln!(out, "=== GATEWAY ROUTING TEST ===")?;
        writeln!(out, "Testing cache-aware routing through production gateway...")?;
        let call = traffic::routing_test(&self.options, &self.names);
        for number in 1..=5 {
            writeln!(out, "Gateway request {number}...")?;
            let answer = self.client.send(&call, self.options.target.deadline()).await;
            writeln!(out, "  Response: {}...", print::preview(&answer, 30))?;
        }
        writeln!(out)?;
        Ok(())
    }

    async fn read_counters(&self) -> Result<Option<PodCounters>, JobError> {
        match &self.counters {
            Some(source) => Ok(Some(source.read().await?)),
            None => Ok(None),
        }
    }

    async fn pause(&self) {
        if self.options.sleep_seconds > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(self.options.sleep_seconds)).await;
        }
    }

    /// What arithmetic allows this run; `None` when no answer told its prompt tokens.
    fn expectation(
        &self,
        ledger: &Ledger,
        health: Option<Usage>,
        system: &System,
    ) -> Option<(Engines, Expectation)> {
        let first = ledger.first?;
        let cached = |usage: Option<Usage>| usage.and_then(|it| it.cached_tokens).unwrap_or(0);
        let traffic = Traffic {
            warmups: u64::from(self.options.warmups()),
            health_tokens: health.map(|usage| usage.prompt_tokens),
            requests: u64::from(self.options.requests),
            prompt_tokens: first.prompt_tokens,
            held: HeldBefore { health: cached(health), prompt: cached(Some(first)) },
        };
        let block_size = self.options.block_size.map(u64::from).or(system.block_size());
        let engines = Engines {
            pods: u64::from(self.options.pod_count().0),
            block_size: block_size.unwrap_or(16),
        };
        Some((engines, expectation(traffic, engines)))
    }

    fn outcome(
        &self,
        ledger: Ledger,
        baseline: Option<PodCounters>,
        last: Option<PodCounters>,
        expectation: Option<(Engines, Expectation)>,
    ) -> RunOutcome {
        let baseline = baseline.map(|read| read.total);
        RunOutcome {
            session: self.names.session.clone(),
            baseline: baseline.unwrap_or_default(),
            by_metrics: last.zip(baseline).map(|(last, baseline)| last.total.since(baseline)),
            by_usage: ledger.by_usage(),
            averages: ledger.averages(),
            upstreams: ledger.upstreams,
            failed: ledger.failed,
            first_failure: ledger.first_failure,
            prompt_tokens: ledger.first.map(|usage| usage.prompt_tokens),
            expectation,
        }
    }
}

/// What each pod counted since the baseline; `None` when pods were not read one by one.
fn pod_deltas(
    baseline: Option<&PodCounters>,
    last: Option<&PodCounters>,
) -> Option<Vec<(String, Counters)>> {
    let (baseline, last) = baseline.zip(last).filter(|(_, last)| !last.pods.is_empty())?;
    let pairs = baseline.pods.iter().zip(&last.pods);
    Some(pairs.map(|((_, before), (pod, after))| (pod.clone(), after.since(*before))).collect())
}
