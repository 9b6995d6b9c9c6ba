//! The `http_*` families of vLLM's `/metrics`: what every HTTP request cost, by handler. Without the
//! `_created` gauges, which say when a family began.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::HttpBody as _,
    http::{HeaderMap, Method, StatusCode, header::CONTENT_LENGTH},
    response::Response,
};
use parking_lot::Mutex;

use super::{pod::Pod, stats::Histogram};

/// Counts requests.
#[derive(Debug, Default)]
pub(super) struct HttpMetrics(Mutex<Families>);

#[derive(Debug)]
struct Families {
    /// By handler, method and status class.
    requests: BTreeMap<(String, String, String), u64>,
    /// Requests, and their bytes in and out, by handler.
    sizes: BTreeMap<String, (u64, u64, u64)>,
    /// Of all requests together.
    durations: Histogram,
    /// By handler and method.
    durations_by_handler: BTreeMap<(String, String), Histogram>,
}

/// A request that is being answered: counted when it is dropped, with the last byte of its answer.
#[derive(Debug)]
pub(super) struct Timed {
    pod: Arc<Pod>,
    handler: String,
    method: Method,
    status: StatusCode,
    bytes: (u64, u64),
    began: Instant,
}

/// Paths that vLLM does not count.
pub(super) const NOT_COUNTED: &[&str] = &["/metrics", "/health", "/load", "/ping", "/version"];

/// The bounds of the family without labels, in seconds.
const FINE_S: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0,
    7.5, 10.0, 30.0, 60.0,
];
/// The bounds of the family by handler, in seconds.
const COARSE_S: &[f64] = &[0.1, 0.5, 1.0];

// === impl Timed ===

impl Timed {
    /// A request with these headers whose head came at `began`.
    pub(super) fn new(
        pod: &Arc<Pod>,
        (handler, method): (Option<&str>, Method),
        asked: &HeaderMap,
        answered: &Response,
        began: Instant,
    ) -> Self {
        Self {
            pod: pod.clone(),
            handler: handler.unwrap_or("none").to_owned(),
            method,
            status: answered.status(),
            // A stream has no length that a header could tell.
            bytes: (length(asked), answered.body().size_hint().exact().unwrap_or(0)),
            began,
        }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.pod.http.count(self, self.began.elapsed());
    }
}

/// What the header says; nothing else is counted.
fn length(headers: &HeaderMap) -> u64 {
    let value = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    value.unwrap_or(0)
}

// === impl HttpMetrics ===

impl HttpMetrics {
    fn count(&self, timed: &Timed, took: Duration) {
        let mut families = self.0.lock();
        let (handler, method) = (timed.handler.clone(), timed.method.to_string());
        let class = format!("{}xx", timed.status.as_u16() / 100);
        *families.requests.entry((handler.clone(), method.clone(), class)).or_default() += 1;
        let sizes = families.sizes.entry(handler.clone()).or_default();
        *sizes = (sizes.0 + 1, sizes.1 + timed.bytes.0, sizes.2 + timed.bytes.1);
        families.durations.observe_time(took);
        let of_handler = families.durations_by_handler.entry((handler, method));
        of_handler.or_insert_with(|| Histogram::new(COARSE_S)).observe_time(took);
    }

    /// The families as a page's end.
    pub(super) fn page(&self) -> String {
        let families = self.0.lock();
        let mut page = String::new();
        families.write(&mut page).expect("writing to a String cannot fail");
        page
    }
}

// === impl Families ===

impl Default for Families {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            sizes: BTreeMap::new(),
            durations: Histogram::new(FINE_S),
            durations_by_handler: BTreeMap::new(),
        }
    }
}

impl Families {
    fn write(&self, page: &mut String) -> std::fmt::Result {
        let help = "Total number of requests by method, status and handler.";
        head(page, "http_requests_total", "counter", help)?;
        for ((handler, method, status), count) in &self.requests {
            let labels = format!("handler=\"{handler}\",method=\"{method}\",status=\"{status}\"");
            writeln!(page, "http_requests_total{{{labels}}} {:?}", *count as f64)?;
        }
        let rest = "by handler. Only value of header is respected. Otherwise ignored. No \
                    percentile calculated. ";
        self.write_sizes(page, "request", &format!("Content length of incoming requests {rest}"))?;
        self.write_sizes(
            page,
            "response",
            &format!("Content length of outgoing responses {rest}"),
        )?;
        let help = "Latency with many buckets but no API specific labels. Made for more accurate \
                    percentile calculations. ";
        head(page, "http_request_duration_highr_seconds", "histogram", help)?;
        histogram(page, "http_request_duration_highr_seconds", ("", ""), &self.durations)?;
        let help = "Latency with only few buckets by handler. Made to be only used if aggregation \
                    by handler is important. ";
        head(page, "http_request_duration_seconds", "histogram", help)?;
        for ((handler, method), of_handler) in &self.durations_by_handler {
            let labels = (format!("handler=\"{handler}\""), format!("method=\"{method}\""));
            let labels = (labels.0.as_str(), labels.1.as_str());
            histogram(page, "http_request_duration_seconds", labels, of_handler)?;
        }
        Ok(())
    }

    fn write_sizes(&self, page: &mut String, what: &str, help: &str) -> std::fmt::Result {
        let name = format!("http_{what}_size_bytes");
        head(page, &name, "summary", help)?;
        for (handler, (count, read, sent)) in &self.sizes {
            let sum = if what == "request" { read } else { sent };
            writeln!(page, "{name}_count{{handler=\"{handler}\"}} {:?}", *count as f64)?;
            writeln!(page, "{name}_sum{{handler=\"{handler}\"}} {:?}", *sum as f64)?;
        }
        Ok(())
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// One histogram with the labels before `le` and after it.
fn histogram(
    page: &mut String,
    name: &str,
    (before, after): (&str, &str),
    of: &Histogram,
) -> std::fmt::Result {
    let labels = |more: &str| {
        let all = [before, more, after].into_iter().filter(|label| !label.is_empty());
        let all = all.collect::<Vec<_>>().join(",");
        if all.is_empty() { all } else { format!("{{{all}}}") }
    };
    let bounds = of.bounds.iter().map(|bound| format!("{bound:?}")).chain(["+Inf".to_owned()]);
    let mut below = 0;
    for (bound, count) in bounds.zip(&of.counts) {
        below += count;
        writeln!(page, "{name}_bucket{} {:?}", labels(&format!("le=\"{bound}\"")), below as f64)?;
    }
    writeln!(page, "{name}_count{} {:?}", labels(""), below as f64)?;
    writeln!(page, "{name}_sum{} {:?}", labels(""), of.sum)
}
