//! Where a pod's events can be had: its own word, else its annotation, else the configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use serde::Deserialize;

use super::{KvEventsSettings, Mode};
use crate::feed::{Voice, read_body};
use crate::pod::Pod;

/// One rank's publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to dial; none: the pod dials us.
    pub publish: Option<SocketAddr>,
    /// Where its history is; none: nowhere.
    pub replay: Option<SocketAddr>,
}

/// Why a pod did not say where its events are.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourcesError {
    #[error("no answer")]
    NoAnswer(#[from] reqwest::Error),
    #[error("/kv_event_sources says {0}")]
    Status(StatusCode),
    #[error("/kv_event_sources is longer than {SOURCES_LIMIT} bytes")]
    TooLong,
    #[error("/kv_event_sources is not what vLLM says there")]
    NotSources(#[from] serde_json::Error),
}

/// 1 MiB: a few hundred bytes per rank.
const SOURCES_LIMIT: usize = 1 << 20;

/// vLLM's `KVEventsConfig` of one rank.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    enable_kv_cache_events: bool,
    publisher: Option<String>,
    endpoint: Option<String>,
    replay_endpoint: Option<String>,
}

/// Asks the pod, then looks elsewhere. Empty: it publishes nothing.
pub(super) async fn find(
    voice: &Voice,
    client: &reqwest::Client,
    settings: &KvEventsSettings,
) -> Result<Vec<Target>, SourcesError> {
    let asked = match ask(voice, client).await {
        Ok(body) => Target::read_all(&body, voice.pod.addr.ip()).map_err(SourcesError::from),
        Err(error) => Err(error),
    };
    let bind = settings.mode != Mode::Connect && settings.bind.is_some();
    let dial = settings.mode != Mode::Bind;
    let mut targets = match &asked {
        Ok(own) if !own.is_empty() => own.clone(),
        _ => configured(&voice.pod, settings),
    };
    if targets.is_empty() && settings.mode == Mode::Bind {
        targets.push(Target { publish: None, replay: None });
    }
    for target in &mut targets {
        target.publish = target.publish.filter(|_| dial);
    }
    targets.retain(|target| target.publish.is_some() || bind);
    if targets.is_empty() {
        // Only a pod that has answered can be said to publish nothing.
        asked?;
    }
    Ok(targets)
}

async fn ask(voice: &Voice, client: &reqwest::Client) -> Result<Vec<u8>, SourcesError> {
    let response = client.get(voice.url("/kv_event_sources")).send().await?;
    match response.status() {
        StatusCode::OK => {}
        // Older than the route.
        StatusCode::NOT_FOUND => return Ok(Vec::new()),
        other => return Err(SourcesError::Status(other)),
    }
    read_body(response, SOURCES_LIMIT).await?.ok_or(SourcesError::TooLong)
}

// === impl Target ===

impl Target {
    /// Reads what `GET /kv_event_sources` of the pod with this address answers,
    /// `{"0": {"endpoint": "tcp://*:5557", …}, "1": …}`: one entry per data-parallel rank. None: it
    /// publishes nothing.
    ///
    /// # Errors
    /// The answer is not what vLLM says there.
    pub fn read_all(body: &[u8], ip: IpAddr) -> Result<Vec<Self>, serde_json::Error> {
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let ranks: BTreeMap<String, Config> = serde_json::from_slice(body)?;
        let mut numbered: Vec<(u32, Config)> = ranks
            .into_iter()
            .filter(|(_, it)| it.enable_kv_cache_events && it.publisher.as_deref() == Some("zmq"))
            .map(|(rank, config)| (rank.parse().unwrap_or(u32::MAX), config))
            .collect();
        numbered.sort_by_key(|(rank, _)| *rank);
        Ok(numbered.iter().map(|(_, config)| Self::of(config, ip)).collect())
    }

    fn of(config: &Config, ip: IpAddr) -> Self {
        let publish = config.endpoint.as_deref().and_then(Host::read);
        let replay = config.replay_endpoint.as_deref().and_then(Host::read);
        Self {
            publish: publish
                .filter(|(host, _)| host.is_of(ip))
                .map(|(_, port)| SocketAddr::new(ip, port)),
            // A router always binds.
            replay: replay.map(|(_, port)| SocketAddr::new(ip, port)),
        }
    }
}

fn configured(pod: &Pod, settings: &KvEventsSettings) -> Vec<Target> {
    let ports = pod.kv_ports.or(settings.ports());
    let Some(ports) = ports else { return Vec::new() };
    let at = |base: u16, rank| Some(SocketAddr::new(pod.addr.ip(), base.checked_add(rank)?));
    (0..ports.ranks)
        .map(|rank| Target {
            publish: at(ports.publish, rank),
            replay: ports.replay.and_then(|base| at(base, rank)),
        })
        .filter(|target| target.publish.is_some())
        .collect()
}

/// The host part of a ZeroMQ endpoint.
enum Host<'a> {
    /// All interfaces: the publisher listens.
    Any,
    /// One address: the publisher's own, or one that it dials.
    One(&'a str),
}

// === impl Host ===

impl<'a> Host<'a> {
    /// Host and port of `tcp://HOST:PORT`.
    fn read(endpoint: &'a str) -> Option<(Self, u16)> {
        let (host, port) = endpoint.strip_prefix("tcp://")?.rsplit_once(':')?;
        let host = match host {
            "*" | "::" | "[::]" | "0.0.0.0" => Self::Any,
            other => Self::One(other.trim_start_matches('[').trim_end_matches(']')),
        };
        Some((host, port.parse().ok().filter(|port| *port != 0)?))
    }

    /// Whether the pod with this address listens there; otherwise it dials that address.
    fn is_of(&self, ip: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::One(host) => host.parse() == Ok(ip),
        }
    }
}

#[cfg(test)]
mod tests;
