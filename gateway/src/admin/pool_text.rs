//! `/pool?format=text`: the pods as a table for a terminal.

use super::pool_page::{PodRow, PoolPage};

const HEADS: [&str; 11] = [
    "POD", "ADDRESS", "ROLE", "HEALTH", "SINCE", "BOOKED", "PREFILL", "RUNNING", "WAITING", "KV",
    "EVENTS",
];

/// Columns of words, which are set to the left; the others are numbers.
const WORDS: usize = 4;

impl PoolPage {
    /// One line per pod, and below it what it last failed at.
    pub(super) fn to_text(&self) -> String {
        let rows: Vec<[String; HEADS.len()]> =
            [HEADS.map(str::to_owned)].into_iter().chain(self.pods.iter().map(cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; HEADS.len()] = std::array::from_fn(|at| width(at).unwrap_or(0));
        let failures = [None].into_iter().chain(self.pods.iter().map(PodRow::failure));
        let lines = rows.iter().zip(failures).map(|(row, failure)| {
            let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| {
                let is_word = at < WORDS || at + 1 == HEADS.len();
                if is_word { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            let failure = failure.map(|it| format!("  {it}\n")).unwrap_or_default();
            format!("{}\n{failure}", line.trim_end())
        });
        lines.collect()
    }
}

fn cells(pod: &PodRow) -> [String; HEADS.len()] {
    let PodRow { name, address, role, health, cordoned, record, engine, booked, kv_events, .. } =
        pod;
    let since = record.since_ms.map_or_else(|| "-".to_owned(), seconds);
    [
        name.clone(),
        address.to_string(),
        (*role).to_owned(),
        if *cordoned { format!("{health},cordoned") } else { (*health).to_owned() },
        since,
        booked.requests.to_string(),
        booked.prefill_tokens.to_string(),
        engine.running.to_string(),
        engine.waiting.to_string(),
        format!("{:.0}%", engine.kv_usage * 100.0),
        kv_events.trust.to_owned(),
    ]
}

/// A span as kubectl writes ages: its largest two units at most.
fn seconds(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m{}s", s / 60, s % 60),
        s @ 3600..86_400 => format!("{}h{}m", s / 3600, s / 60 % 60),
        s => format!("{}d{}h", s / 86_400, s / 3600 % 24),
    }
}

// === impl PodRow ===

impl PodRow {
    fn failure(&self) -> Option<String> {
        let failure = self.record.last_failure.as_ref()?;
        Some(format!("{} ago: {}", seconds(failure.ago_ms), failure.reason))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::reading::tests::reading;

    #[test]
    fn columns_stand_under_their_heads() {
        let reading = reading();
        let failed = reading.snapshot.endpoints[2].record.last_failure.as_ref();
        let now = failed.expect("it is unproven").at + Duration::from_secs(61);
        insta::assert_snapshot!(PoolPage::of(&reading, now).to_text());
    }

    #[test]
    fn spans_are_written_as_kubectl_writes_ages() {
        let spans = [59_999, 61_000, 3_660_000, 90_000_000].map(seconds);
        assert_eq!(spans, ["59s", "1m1s", "1h1m", "1d1h"]);
    }
}
