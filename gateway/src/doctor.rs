//! `hearth doctor`: every pod is looked at once, and whatever keeps it from being used well is said
//! in one line, with what to do.

mod examine;
mod judge;
mod pairs;
#[cfg(test)]
mod tests;
mod tokens;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use reqwest::header::HeaderValue;
use router::pool::{self, Role};
use router::tokenize::Hub;
use serde::Serialize;

use crate::config::Config;
use crate::disagreements::disagreements;

pub use self::judge::Finding;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// What is wrong with finding pods, or with all of them.
    pub fleet: Vec<Finding>,
    /// The pods.
    pub pods: Vec<Patient>,
}

/// One pod.
#[derive(Clone, Debug, Serialize)]
pub struct Patient {
    /// Its name, or its address again.
    pub name: String,
    /// Where its API is.
    pub address: SocketAddr,
    #[serde(skip)]
    role: Role,
    /// What it serves.
    pub models: Vec<String>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// Discovery.
    #[error(transparent)]
    Pool(#[from] pool::StartError),
    /// Discovery has ended.
    #[error(transparent)]
    Ended(#[from] tokio::task::JoinError),
    /// A tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] crate::app::StartError),
    /// The HTTP client.
    #[error("cannot build an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The pods' token could not be read, or is none.
    #[error("pool.probe.token_file: {0}")]
    Token(io::Error),
    /// The report could not be written.
    #[error("writing the report: {0}")]
    Write(#[from] io::Error),
}

/// Longest wait for the first list of pods.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for tokenizers that are not on this machine.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Pods that are looked at side by side.
const AT_ONCE: usize = 16;

/// What the pods want as `Authorization`.
async fn token(config: &Config) -> Result<Option<HeaderValue>, DoctorError> {
    let Some(file) = &config.pool.probe.token_file else { return Ok(None) };
    let token = tokio::fs::read_to_string(file).await.map_err(DoctorError::Token)?;
    let field = format!("Bearer {}", token.trim()).parse();
    let field: Result<HeaderValue, _> =
        field.map_err(|it| DoctorError::Token(io::Error::other(it)));
    let mut field = field?;
    field.set_sensitive(true);
    Ok(Some(field))
}

/// Looks at every pod that `config` finds.
///
/// # Errors
/// See [`DoctorError`]; a pod that cannot be reached is a finding.
pub async fn diagnose(config: &Config) -> Result<Diagnosis, DoctorError> {
    router::tls::install_provider();
    let (pool, guard) =
        pool::start(config.pool.clone(), config.discovery(), pool::Hooks::default())?;
    let listed = pool.wait_for(|now| now.synced_at.is_some() || now.discovery_error.is_some());
    let listed = tokio::time::timeout(LIST_TIMEOUT, listed).await;
    let snapshot = pool.snapshot();
    guard.shutdown().await?;

    let mut fleet = Vec::new();
    if let Some(error) = &snapshot.discovery_error {
        fleet.push(Finding::discovery(error, &config.kubernetes));
    } else if listed.is_err() {
        fleet.push(Finding::discovery("no answer within 10 s", &config.kubernetes));
    }
    if snapshot.endpoints.is_empty() {
        fleet.push(Finding::no_pods(&config.kubernetes));
    }
    let client = examine::client(token(config).await?)?;
    let tokenizers = crate::app::tokenizers(config)?;
    let hub = Hub::from_env();
    // What takes longer is told as on its way.
    drop(tokio::time::timeout(FETCH_TIMEOUT, tokenizers.fetch_once(&hub)).await);
    let how = examine::How { idle: config.deadlines.upstream_idle.get(), tokenizers: &tokenizers };
    let examined = stream::iter(&snapshot.endpoints)
        .map(|endpoint| {
            let (pod, client, how) = (&endpoint.pod, &client, &how);
            async move { (pod, examine::examine(client, pod.addr, how).await) }
        })
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let facts = examined.iter().filter_map(|(_, seen)| seen.as_ref().ok());
    let claims: Vec<_> = facts.map(examine::Facts::claims).collect();
    fleet.extend(disagreements(&claims, &tokenizers.report()).iter().map(Finding::disagreement));
    let mut pods = Vec::new();
    for (pod, seen) in &examined {
        let others = examined.iter().filter_map(|(_, other)| other.as_ref().ok());
        let (models, findings) = match seen {
            Ok(facts) => (facts.models.clone(), judge::pod(facts, others)),
            Err(error) => (Vec::new(), vec![Finding::unreachable(error)]),
        };
        let (name, address, role) = (pod.name.to_string(), pod.addr, pod.role);
        pods.push(Patient { name, address, role, models, findings });
    }
    let halves: Vec<_> = pods
        .iter()
        .filter_map(|pod| Some((pod.address, pod.role, pod.models.first()?.clone())))
        .collect();
    let halves: Vec<_> = halves
        .iter()
        .map(|(addr, role, model)| pairs::Half { addr: *addr, role: *role, model })
        .collect();
    for (addr, finding) in pairs::examine(&client, &config.split, &halves).await {
        let of_pod = pods.iter_mut().filter(|pod| pod.address == addr);
        of_pod.for_each(|pod| pod.findings.push(finding.clone()));
    }
    fleet.extend(judge::roles(&pods.iter().map(|pod| pod.role).collect::<Vec<_>>()));
    Ok(Diagnosis { fleet, pods })
}

// === impl Diagnosis ===

impl Diagnosis {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.fleet.is_empty() && self.pods.iter().all(|pod| pod.findings.is_empty())
    }

    /// One line for each finding, and one for each pod without any.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        for finding in &self.fleet {
            writeln!(out, "BAD  fleet: {finding}")?;
        }
        for pod in &self.pods {
            let who = if pod.name == pod.address.to_string() {
                pod.name.clone()
            } else {
                format!("{} {}", pod.name, pod.address)
            };
            if pod.findings.is_empty() {
                writeln!(out, "ok   {who}: {}", pod.models.join(", "))?;
            }
            for finding in &pod.findings {
                writeln!(out, "BAD  {who}: {finding}")?;
            }
        }
        Ok(())
    }

    /// All of it as one JSON object.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}
