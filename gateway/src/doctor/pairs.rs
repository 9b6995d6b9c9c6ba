//! Whether prefill pods hand their blocks over to decode pods: tried, since no page says it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::{Client, StatusCode};
use router::SplitSettings;
use router::connector::{Connector, Handoff, Order};
use router::openai::{Api, prefill_leg, with};
use router::pool::Role;
use serde_json::{Value, json};

use super::judge::Finding;

/// A pod that answers, as far as pairs are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half<'a> {
    pub(super) addr: SocketAddr,
    pub(super) role: Role,
    pub(super) model: &'a str,
}

/// Words of the prompt that is handed over: some blocks, whatever their size.
const PROBE_WORDS: usize = 256;
/// The share of a lease within which the gateway sends decode legs.
const USED_SHARE: (u32, u32) = (2, 3);
const EXPIRED: &str = "vllm:nixl_num_kv_expired_reqs_total";

/// Has each prefill pod hand over to a decode pod and each decode pod take from a prefill pod, and
/// waits whether a lease ends too early. Nothing where no pod only prefills, or the connector is one
/// whose legs cannot be sent one after the other.
pub(super) async fn examine(
    client: &Client,
    split: &SplitSettings,
    halves: &[Half<'_>],
) -> Vec<(SocketAddr, Finding)> {
    let Some(connector) =
        split.connector.connector().filter(|it| it.order() == Order::AfterPrefill)
    else {
        return Vec::new();
    };
    let of = |is_prefill: bool| {
        halves.iter().filter(move |half| (half.role == Role::Prefill) == is_prefill)
    };
    let (Some(first_prefill), Some(first_decode)) = (of(true).next(), of(false).next()) else {
        return Vec::new();
    };
    let pair = Pair { client, connector };
    let mut found = Vec::new();
    for from in of(true) {
        if let Err(finding) = pair.hand_over(from, first_decode).await {
            found.push((from.addr, finding));
        }
    }
    for to in of(false).filter(|half| half.addr != first_decode.addr) {
        if let Err(finding) = pair.hand_over(first_prefill, to).await {
            found.push((to.addr, finding));
        }
    }
    if connector.has_lease() && found.is_empty() {
        let (numerator, denominator) = USED_SHARE;
        let used = split.lease.get() * numerator / denominator;
        let expiries = of(true).map(|from| pair.expires_within(from, used));
        found.extend(futures_util::future::join_all(expiries).await.into_iter().flatten());
    }
    found
}

struct Pair<'a> {
    client: &'a Client,
    connector: &'static dyn Connector,
}

impl Pair<'_> {
    /// A prefill leg's answer.
    async fn prefill(&self, from: &Half<'_>, body: &Bytes) -> Result<Bytes, Finding> {
        let more = self.connector.prefill(&handoff(from));
        let leg = prefill_leg(Api::Completions, body, &more).map_err(Finding::split)?;
        match self.post(from.addr, leg).await {
            Ok((StatusCode::OK, answer)) => Ok(answer),
            Ok((status, _)) => Err(Finding::split(format!("its prefill leg says {status}"))),
            Err(error) => Err(Finding::split(error)),
        }
    }

    async fn hand_over(&self, from: &Half<'_>, to: &Half<'_>) -> Result<(), Finding> {
        let body = prompt(from.model);
        let answer = self.prefill(from, &body).await?;
        let members = self.connector.decode(&handoff(from), &answer).map_err(Finding::split)?;
        let leg = with(&body, &members).map_err(Finding::split)?;
        let tp = (tp_size(&answer), self.tp_size(to).await);
        if let (Some(from_tp), Some(to_tp)) = tp
            && from_tp % to_tp != 0
            && to_tp % from_tp != 0
        {
            return Err(Finding::tensor_parallel(from_tp, to_tp));
        }
        match self.post(to.addr, leg).await {
            Ok((StatusCode::OK, _)) => Ok(()),
            Ok((status, _)) => {
                let what = format!("{} takes nothing from {}: {status}", to.addr, from.addr);
                Err(Finding::split(what))
            }
            Err(error) => Err(Finding::split(error)),
        }
    }

    /// Tensor-parallel ranks of a pod, as its own prefill leg would say.
    async fn tp_size(&self, of: &Half<'_>) -> Option<u64> {
        tp_size(&self.prefill(of, &prompt(of.model)).await.ok()?)
    }

    /// Whether blocks that nobody comes for are gone before the gateway would have given them up.
    async fn expires_within(
        &self,
        from: &Half<'_>,
        used: Duration,
    ) -> Option<(SocketAddr, Finding)> {
        let began = Instant::now();
        let before = self.expired(from.addr).await?;
        self.prefill(from, &prompt(from.model)).await.ok()?;
        tokio::time::sleep(used.saturating_sub(began.elapsed())).await;
        let is_over = self.expired(from.addr).await? > before;
        is_over.then(|| (from.addr, Finding::lease(used)))
    }

    async fn expired(&self, addr: SocketAddr) -> Option<f64> {
        let page = self.client.get(format!("http://{addr}/metrics")).send().await.ok()?;
        let page = page.text().await.ok()?;
        let samples = page.lines().filter(|line| line.starts_with(EXPIRED));
        samples.map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    async fn post(&self, addr: SocketAddr, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let url = format!("http://{addr}{}", Api::Completions.path());
        let post = self.client.post(url).header("content-type", "application/json").body(body);
        let answer = post.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        Ok((status, answer.bytes().await.map_err(|error| error.to_string())?))
    }
}

fn handoff(from: &Half<'_>) -> Handoff<'static> {
    Handoff { id: "doctor", room: 1, prefill: from.addr, port: 0, engine_id: None }
}

/// A prompt that no cache holds: what is cached is not handed over.
fn prompt(model: &str) -> Bytes {
    let words = format!("{} {}", uuid::Uuid::new_v4(), "hearth ".repeat(PROBE_WORDS));
    json!({"model": model, "prompt": words, "max_tokens": 2}).to_string().into()
}

fn tp_size(answer: &[u8]) -> Option<u64> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    answer["kv_transfer_params"]["tp_size"].as_u64().filter(|size| *size > 0)
}
