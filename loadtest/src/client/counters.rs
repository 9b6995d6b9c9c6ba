//! vLLM's prefix-cache counters, read from the pods or from Prometheus.
//!
//! `vllm:prefix_cache_queries_total` and `vllm:prefix_cache_hits_total` count prompt *tokens*, not
//! requests. Sums over all pods mix every run that is going on: a run's own numbers come from its
//! answers' `usage`.

use std::collections::BTreeMap;

use super::{Client, ClientError};

const QUERIES: &str = "vllm:prefix_cache_queries_total";
const HITS: &str = "vllm:prefix_cache_hits_total";

/// The two counters, in tokens, floored to whole ones as the pipeline we replace did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Prompt tokens looked up.
    pub queries: u64,
    /// Prompt tokens found.
    pub hits: u64,
}

/// One pod's counters, by the name it was given with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodCounters {
    /// `host:port` and counters, in the order given; empty when Prometheus was asked.
    pub pods: Vec<(String, Counters)>,
    /// The sum.
    pub total: Counters,
}

/// What a pod says of its cache (`vllm:cache_config_info`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EngineConfig {
    /// The info metric's labels.
    pub labels: BTreeMap<String, String>,
}

/// Where counters come from.
#[derive(Clone, Debug)]
pub enum CounterSource {
    /// Each pod's own `/metrics`: no scrape delay.
    Pods(Vec<Client>),
    /// Prometheus' `/api/v1/query`: as old as its last scrape.
    Prometheus(Client),
}

/// Why counters cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// A pod or Prometheus gave nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The page is not Prometheus text.
    #[error("{url}/metrics is not Prometheus text: {reason}")]
    Text {
        /// Whose page.
        url: String,
        /// What the parser says.
        reason: std::io::Error,
    },
    /// The page has no such series.
    #[error("{url} has no series `{metric}`: is prefix caching on, is it vLLM >= 0.9?")]
    Missing {
        /// Whose page.
        url: String,
        /// The series.
        metric: &'static str,
    },
}

// === impl Counters ===

impl Counters {
    /// What was added since `earlier`; a counter that went back (a restart) adds nothing.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            queries: self.queries.saturating_sub(earlier.queries),
            hits: self.hits.saturating_sub(earlier.hits),
        }
    }

    /// Both, added up.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { queries: self.queries + other.queries, hits: self.hits + other.hits }
    }

    /// Hits of 100 queried tokens; 0 when nothing was queried.
    pub fn hit_rate_percent(self) -> f64 {
        crate::report::percent(self.hits, self.queries)
    }
}

// === impl EngineConfig ===

impl EngineConfig {
    /// Reads it off a pod's metrics page.
    ///
    /// # Errors
    /// The pod does not answer, or its page is not Prometheus text.
    pub async fn read(pod: &Client) -> Result<Self, CountersError> {
        parse_config(pod.base_url(), &pod.get("/metrics").await?)
    }

    /// Tokens of one KV block.
    pub fn block_size(&self) -> Option<u64> {
        self.labels.get("block_size")?.parse().ok()
    }

    /// Whether the pod reuses prefixes.
    pub fn has_prefix_caching(&self) -> bool {
        self.labels.get("enable_prefix_caching").is_some_and(|on| on == "True")
    }
}

// === impl CounterSource ===

impl CounterSource {
    /// Reads both counters, everywhere.
    ///
    /// # Errors
    /// A pod or Prometheus that does not answer, or that has no such series.
    pub async fn read(&self) -> Result<PodCounters, CountersError> {
        match self {
            Self::Pods(pods) => {
                let mut read = PodCounters::default();
                for pod in pods {
                    let page = pod.get("/metrics").await?;
                    let counters = parse_counters(pod.base_url(), &page)?;
                    read.total = read.total.plus(counters);
                    read.pods.push((pod.authority().to_owned(), counters));
                }
                Ok(read)
            }
            Self::Prometheus(prometheus) => {
                let total = Counters {
                    queries: query(prometheus, QUERIES).await?,
                    hits: query(prometheus, HITS).await?,
                };
                Ok(PodCounters { pods: Vec::new(), total })
            }
        }
    }
}

fn parse_config(url: &str, page: &str) -> Result<EngineConfig, CountersError> {
    let scrape = scrape(url, page)?;
    let info = scrape.samples.iter().find(|sample| sample.metric == "vllm_cache_config_info");
    let labels = info.map(|sample| {
        sample.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    });
    Ok(EngineConfig { labels: labels.unwrap_or_default() })
}

fn parse_counters(url: &str, page: &str) -> Result<Counters, CountersError> {
    let scrape = scrape(url, page)?;
    let sum = |metric: &'static str| {
        let name = metric.replacen(':', "_", 1);
        let mut values = scrape
            .samples
            .iter()
            .filter(|sample| sample.metric == name)
            .filter_map(|sample| match sample.value {
                prometheus_parse::Value::Counter(value)
                | prometheus_parse::Value::Gauge(value)
                | prometheus_parse::Value::Untyped(value) => Some(value),
                prometheus_parse::Value::Histogram(_) | prometheus_parse::Value::Summary(_) => None,
            })
            .peekable();
        let found = values.peek().is_some();
        found
            .then(|| whole(values.sum()))
            .ok_or(CountersError::Missing { url: url.to_owned(), metric })
    };
    Ok(Counters { queries: sum(QUERIES)?, hits: sum(HITS)? })
}

/// `prometheus-parse` does not take the colon that vLLM puts into every name, so it becomes `_`.
fn scrape(url: &str, page: &str) -> Result<prometheus_parse::Scrape, CountersError> {
    let lines = page.lines().map(|line| Ok(line.replacen("vllm:", "vllm_", 1)));
    prometheus_parse::Scrape::parse(lines)
        .map_err(|reason| CountersError::Text { url: url.to_owned(), reason })
}

async fn query(prometheus: &Client, metric: &'static str) -> Result<u64, CountersError> {
    let missing = || CountersError::Missing { url: prometheus.base_url().to_owned(), metric };
    let answer = prometheus.get(&format!("/api/v1/query?query=sum({metric})")).await?;
    let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|_error| missing())?;
    let value = answer.pointer("/data/result/0/value/1").and_then(serde_json::Value::as_str);
    value.and_then(|value| value.parse().ok()).map(whole).ok_or_else(missing)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a token counter is not negative and stays below 2^53; `as` saturates besides"
)]
fn whole(value: f64) -> u64 {
    value.floor() as u64
}

#[cfg(test)]
mod tests;
