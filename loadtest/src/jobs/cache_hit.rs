//! `loadtest cache-hit`: one prompt, many times, and how much of it the engines did not recompute.
//!
//! Prints the lines of the Tekton task `cache-hit-test` that it replaces, in their order and format;
//! a line that was hard-coded there says what was measured here.

mod arithmetic;
mod options;
mod outcome;
mod print;
mod run;
mod system;
mod traffic;

pub use arithmetic::{CHAT_PREFIX_TOKENS, Engines, Expectation, HeldBefore, Traffic, expectation};
pub use options::Options;
pub use outcome::{Averages, Outcome, RunOutcome};

use futures_util::future::join_all;

use super::{JobError, Out, epoch_s};
use run::Run;

/// Runs the job, printing as it goes.
///
/// # Errors
/// The gateway does not answer chat, counters cannot be read, or the output cannot be written.
pub async fn run(options: &Options, out: Out<'_>) -> Result<Outcome, JobError> {
    run_at(options, epoch_s(), out).await
}

/// [`run()`], with sessions named after the given second.
///
/// # Errors
/// As [`run()`].
pub async fn run_at(options: &Options, epoch_s: u64, out: Out<'_>) -> Result<Outcome, JobError> {
    options.check()?;
    let runs = if options.runs == 1 {
        vec![Run::new(options, epoch_s, None)?.execute(out).await?]
    } else {
        parallel(options, epoch_s, out).await?
    };
    let outcome = Outcome::judge(options, runs);
    if options.runs > 1 {
        print::runs(out, &outcome)?;
    }
    print::shortfalls(out, &outcome)?;
    Ok(outcome)
}

/// All runs at once; each prints to its own page, and the pages follow in order.
async fn parallel(
    options: &Options,
    epoch_s: u64,
    out: Out<'_>,
) -> Result<Vec<RunOutcome>, JobError> {
    let mut pages = Vec::new();
    for number in 1..=options.runs {
        let run = Run::new(options, epoch_s, Some(number))?;
        pages.push(async move {
            let mut page = Vec::new();
            let outcome = run.execute(&mut page).await;
            (page, outcome)
        });
    }
    let mut outcomes = Vec::new();
    for ((page, outcome), number) in join_all(pages).await.into_iter().zip(1u32..) {
        writeln!(out, "##### Run {number} of {} #####", options.runs)?;
        out.write_all(&page)?;
        writeln!(out)?;
        outcomes.push(outcome?);
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests;
