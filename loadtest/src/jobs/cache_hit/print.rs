//! The job's lines, in the pipeline's format. Values in, text out: nothing is measured here.

use std::io;

use super::super::Out;
use super::Options;
use super::outcome::{Averages, Outcome, RunOutcome};
use super::system::System;
use crate::client::{Answer, Counters, millis};
use crate::report::{Tally, percent, table};

pub(super) fn system(out: Out<'_>, system: &System) -> io::Result<()> {
    writeln!(out, "=== Verifying LLM-D System Status ====")?;
    let Some(first) = system.pods.first() else {
        return writeln!(out, "Pods are not named (--pod-urls): known by x-upstream-host only\n");
    };
    writeln!(out, "Checking for running decode pods...")?;
    writeln!(out, "Found {} running decode pods:", system.pods.len())?;
    for pod in &system.pods {
        writeln!(out, "  - {pod}")?;
    }
    let version = system.version.as_deref().unwrap_or("unknown");
    writeln!(out, "✅ Test pod: {first}")?;
    writeln!(out, "✅ vLLM image: vLLM {version} (from /version)")?;
    writeln!(out, "✅ vLLM container is ready\n")
}

pub(super) fn opening(out: Out<'_>, gateway: &str, test_id: &str) -> io::Result<()> {
    writeln!(out, "=== Production KV-Cache Validation Script ===")?;
    writeln!(out, "Measures how many prompt tokens the engines took from their prefix caches\n")?;
    writeln!(out, "Using gateway URL: {gateway}\n")?;
    writeln!(out, "Test-ID: {test_id}\n")
}

pub(super) fn configuration(out: Out<'_>, system: &System) -> io::Result<()> {
    writeln!(out, "=== CONFIGURATION VERIFICATION ===")?;
    writeln!(out, "vLLM Configuration: {}", system.describe())?;
    if system.is_as_expected() {
        writeln!(out, "✅ Optimized configuration confirmed\n")
    } else {
        writeln!(out, "⚠️  Configuration may not be fully optimized\n")
    }
}

/// `None`: no counters are read, so this run counts from nothing.
pub(super) fn baseline(out: Out<'_>, counters: Option<Counters>) -> io::Result<()> {
    let Counters { queries, hits } = counters.unwrap_or_default();
    let title = "Baseline after warm-up (aggregate)";
    writeln!(out, "{title} - Queries: {queries}, Hits: {hits}")?;
    if counters.is_none() {
        writeln!(
            out,
            "(engine counters are not read: tokens are those of this run's own answers)"
        )?;
    }
    writeln!(out)
}

pub(super) fn measuring(out: Out<'_>, options: &Options, session: &str) -> io::Result<()> {
    if options.no_session_headers {
        writeln!(out, "Testing cache-aware routing without session headers...")?;
    } else {
        writeln!(out, "Testing enhanced cache-aware routing with session-aware scoring...")?;
    }
    writeln!(out, "Session ID: {session}")
}

pub(super) fn answer(out: Out<'_>, answer: &Answer) -> io::Result<()> {
    let total_ms = millis(answer.timing.total);
    let ttft_ms = answer.timing.ttft.map_or(total_ms, millis);
    let post_ms = total_ms - ttft_ms;
    writeln!(out, "    Response: {}...", preview(answer, 50))?;
    writeln!(
        out,
        "    Timings: TTFT~{ttft_ms:.1} ms, Post~{post_ms:.1} ms, Total~{total_ms:.1} ms"
    )?;
    if let Some(upstream) = answer.upstream() {
        writeln!(out, "    Upstream: {upstream}")?;
    }
    writeln!(out, "    Headers (subset):")?;
    for (name, value) in &answer.headers {
        let name = name.as_str();
        if name.starts_with("x-") || matches!(name, "server" | "via" | "date") {
            writeln!(out, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
    }
    Ok(())
}

/// The first characters of an answer's first line, or why there is none.
pub(super) fn preview(answer: &Answer, chars: usize) -> String {
    let text = match &answer.failure {
        Some(failure) => failure.to_string(),
        None if answer.text.is_empty() => "No response".into(),
        None => answer.text.clone(),
    };
    text.lines().next().unwrap_or_default().chars().take(chars).collect()
}

/// `deltas` are the pods' own counters; without them, the answers' usage per upstream.
pub(super) fn per_pod(
    out: Out<'_>,
    deltas: Option<&[(String, Counters)]>,
    by_usage: &Tally,
) -> io::Result<()> {
    writeln!(out, "\n=== PER-POD STICKINESS FROM METRICS DELTAS ===")?;
    writeln!(out, "Per-pod query deltas (ip->delta, name):")?;
    let mut queries = Tally::default();
    let origin = match deltas {
        Some(deltas) => {
            deltas.iter().for_each(|(pod, counters)| queries.add(pod, counters.queries));
            "counted by the pod"
        }
        None => {
            queries = by_usage.clone();
            "counted from answers"
        }
    };
    for (pod, tokens) in queries.iter() {
        writeln!(out, "  {pod} -> {tokens}  ({origin})")?;
    }
    let (top, count) = queries.top().filter(|(_, count)| *count > 0).unwrap_or(("unknown", 0));
    writeln!(
        out,
        "TopPodIP {top}  TopCount {count}  Total {}  Stickiness % (metrics) {:.1}",
        queries.total(),
        queries.top_percent()
    )
}

pub(super) fn session_stickiness(out: Out<'_>, session: &str, upstreams: &Tally) -> io::Result<()> {
    let (top, count) = upstreams.top().unwrap_or(("unknown", 0));
    let (total, share) = (upstreams.total(), upstreams.top_percent());
    writeln!(out, "\n=== SESSION STICKINESS (from x-upstream-host headers) ===")?;
    writeln!(
        out,
        "Session {session}  TopUpstream {top}  TopCount {count}  Total {total}  \
         Stickiness % {share:.1}"
    )
}

pub(super) fn averages(out: Out<'_>, averages: Averages, is_stream: bool) -> io::Result<()> {
    let Averages { requests, ttft_ms, tpot_ms, total_ms } = averages;
    // Answers that end with their first token, or before it, have none to measure.
    let ttft = ttft_ms.map_or("n/a".to_owned(), |ms| format!("{ms:.1} ms"));
    let tpot = tpot_ms.map_or("n/a".to_owned(), |ms| format!("{ms:.2} ms"));
    writeln!(
        out,
        "Averages over {requests} requests: TTFT={ttft}, TPOT={tpot}, TOTAL={total_ms:.1} ms"
    )?;
    if !is_stream {
        writeln!(out, "(not streamed: TTFT is the first byte of a finished answer)")?;
    }
    writeln!(out)
}

pub(super) fn aggregate(out: Out<'_>, run: &RunOutcome) -> io::Result<()> {
    let Counters { queries, hits } = run.baseline.plus(run.measured());
    writeln!(out, "=== AGGREGATE METRICS (Aggregated via Prometheus when available) ===")?;
    writeln!(out, "Aggregate totals - Queries: {queries}, Hits: {hits}")?;
    let delta = run.measured();
    let Counters { queries, hits } = delta;
    writeln!(out, "Aggregate deltas (measured loop) - ΔQueries: {queries}, ΔHits: {hits}")?;
    if queries > 0 {
        let rate = delta.hit_rate_percent();
        writeln!(out, "Delta Hit Rate (measured traffic): {rate:.1}%")?;
    }
    match run.by_usage {
        Some(usage) => writeln!(
            out,
            "By usage (this run's answers only) - ΔQueries: {}, ΔHits: {} = {:.1}%",
            usage.queries,
            usage.hits,
            usage.hit_rate_percent()
        ),
        None => writeln!(out, "By usage: the engine does not tell cached tokens"),
    }
}

pub(super) fn analysis(out: Out<'_>, options: &Options, run: &RunOutcome) -> io::Result<()> {
    writeln!(out, "\n=== SESSION STICKINESS ANALYSIS ===")?;
    let (requests, session) = (options.requests, &run.session);
    if options.no_session_headers {
        writeln!(out, "Pipeline sent {requests} requests without session headers")?;
    } else {
        writeln!(out, "Pipeline sent {requests} requests with the same session ID: {session}")?;
    }
    writeln!(out, "They were answered by {} pod(s)", run.upstreams.len())?;
    let measured = run.measured();
    if measured.queries == 0 {
        return writeln!(out, "⚠️ No queries detected in aggregate deltas - check configuration\n");
    }
    let rate = measured.hit_rate_percent();
    writeln!(out, "\n🎉 Overall Cache Hit Rate (measured): {rate:.1}%")?;
    let verdict = match rate {
        rate if rate >= 80.0 => "🏆 EXCELLENT: High cache efficiency achieved!",
        rate if rate >= 60.0 => "✅ VERY GOOD: Good cache performance",
        rate if rate >= 40.0 => "✅ GOOD: Cache working, room for improvement",
        _ => "⚠️ Cache efficiency below optimal - check session affinity",
    };
    writeln!(out, "{verdict}\n")
}

pub(super) fn results(out: Out<'_>, run: &RunOutcome) -> io::Result<()> {
    let (measured, baseline) = (run.measured(), run.baseline);
    let last = baseline.plus(measured);
    writeln!(out, "=== RESULTS ===")?;
    writeln!(out, "Aggregate baseline queries: {}", baseline.queries)?;
    writeln!(out, "Aggregate baseline hits: {}", baseline.hits)?;
    writeln!(out, "Aggregate final queries: {}", last.queries)?;
    writeln!(out, "Aggregate final hits: {}", last.hits)?;
    writeln!(out, "Measured deltas - ΔQueries: {}, ΔHits: {}", measured.queries, measured.hits)?;
    writeln!(out, "Overall hit rate (measured): {:.1}%\n", measured.hit_rate_percent())
}

/// The two numbers without which a hit rate says nothing.
pub(super) fn arithmetic(out: Out<'_>, options: &Options, run: &RunOutcome) -> io::Result<()> {
    let Some(((engines, expected), tokens)) = run.expectation.zip(run.prompt_tokens) else {
        return writeln!(out, "Arithmetic: unknown, no answer told its prompt tokens\n");
    };
    let guess = if options.pod_count().1 { " (assumed, see --pods)" } else { "" };
    let (pods, alone) = match expected.is_fresh {
        true => (format!("{} fresh pods{guess}", engines.pods), ""),
        // Another run's requests, beside this one or before it.
        false => {
            (format!("{} pods{guess} that held some of it before", engines.pods), ", on fresh pods")
        }
    };
    writeln!(
        out,
        "=== ARITHMETIC ({} requests of {tokens} tokens, {pods}, blocks of {}) ===",
        options.requests, engines.block_size
    )?;
    let line = |name: &str, counters: Counters| {
        let Counters { queries, hits } = counters;
        format!("{name} {hits}/{queries} = {:.1}%", counters.hit_rate_percent())
    };
    writeln!(out, "{}", line("Ceiling, all on the warm pod:", expected.ceiling))?;
    writeln!(out, "{}", line("Measured:", run.measured()))?;
    writeln!(
        out,
        "{}\n",
        line(&format!("Round-robin, no policy at all{alone}:"), expected.round_robin)
    )
}

pub(super) fn summary(out: Out<'_>, gateway: &str, run: &RunOutcome) -> io::Result<()> {
    writeln!(out, "=== MULTI-SESSION STICKINESS SUMMARY (current Test-ID and Session-ID) ===")?;
    writeln!(out, "Found 1 gateway address, {gateway} (counted from answers, not from logs)")?;
    let (top, count) = run.upstreams.top().unwrap_or(("unknown", 0));
    writeln!(
        out,
        "Session {}\tTopUpstream {top}\tTopCount {count}\tTotal {}\tStickiness % {:.1}\n",
        run.session,
        run.upstreams.total(),
        run.upstreams.top_percent()
    )
}

pub(super) fn status(out: Out<'_>, system: &System, run: &RunOutcome) -> io::Result<()> {
    let mark = |good: bool| if good { "✅" } else { "⚠️" };
    let version = system.version.as_deref().unwrap_or("of unknown version");
    let (top, count) = run.upstreams.top().unwrap_or(("unknown", 0));
    let total = run.upstreams.total();
    let rate = run.measured().hit_rate_percent();
    writeln!(out, "=== CACHE-AWARE ROUTING STATUS ===")?;
    let is_expected = system.is_as_expected();
    writeln!(out, "{} vLLM {version}: {}", mark(is_expected), system.describe())?;
    writeln!(
        out,
        "{} Session Affinity: {count} of {total} requests on {top} ({:.1}%)",
        mark(count > 0 && count == total),
        percent(count, total)
    )?;
    writeln!(out, "{} Cache Hit Rate: {rate:.1}%", mark(rate >= 40.0))?;
    writeln!(out, "🎯 Production KV-Cache System Validation Complete!")
}

/// Several runs, side by side.
pub(super) fn runs(out: Out<'_>, outcome: &Outcome) -> io::Result<()> {
    let rows = outcome.runs.iter().map(|run| {
        let Counters { queries, hits } = run.measured();
        [
            run.session.clone(),
            queries.to_string(),
            hits.to_string(),
            format!("{:.1}", run.measured().hit_rate_percent()),
            run.upstreams.top().map_or("unknown", |(top, _count)| top).to_owned(),
            format!("{:.1}", run.upstreams.top_percent()),
        ]
    });
    let headings = ["session", "ΔQueries", "ΔHits", "hit %", "top upstream", "sticky %"];
    writeln!(out, "{}", table(headings, rows))
}

pub(super) fn shortfalls(out: Out<'_>, outcome: &Outcome) -> io::Result<()> {
    outcome.shortfalls.iter().try_for_each(|shortfall| writeln!(out, "❌ {shortfall}"))
}
