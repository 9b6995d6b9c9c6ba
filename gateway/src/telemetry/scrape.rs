//! What Prometheus gets: the families that count as things happen, and those that are read from what
//! the router knows at this moment.

use prometheus::proto::MetricFamily;
use prometheus::{Error, Registry};
use tokio::time::Instant;

use super::reading::Reading;
use super::registrar::Registrar;
use super::{epp_names, kv_metrics, router_metrics};

/// All families in the order of their names: `counted`, and what `reading` says at `now`, under an
/// Endpoint Picker's names too if those are wanted.
///
/// What is read goes through a registry that is thrown away: there is no second account to keep, two
/// scrapes at once do not see each other half filled, and a pod that has gone is gone from the next.
///
/// # Errors
/// None in practice: the names are fixed, well formed and different.
pub fn scrape(
    counted: &Registry,
    (reading, epp_names): (&Reading, bool),
    now: Instant,
) -> Result<Vec<MetricFamily>, Error> {
    let read = Registry::new();
    let of = Registrar(&read);
    router_metrics::register(&of, reading, now)?;
    kv_metrics::register(&of, reading)?;
    if epp_names {
        epp_names::read(&of, reading)?;
    }
    let mut families = counted.gather();
    families.extend(read.gather());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(families)
}
