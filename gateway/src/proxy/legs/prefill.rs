//! The prefill leg: one token of a whole answer, of which two things count.

use std::pin::pin;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use router::Placement;
use router::openai::{prefill_leg, with};
use router::silence::Ear;
use serde::Deserialize;
use tokio::time::timeout;

use super::Legs;
use crate::proxy::connection::Connection;
use crate::proxy::lease::Lease;
use crate::proxy::upstream::{Answer, Call, with_length};
use crate::request::failure::{Failure, report};
use crate::request::usage::Usage;

/// A prefill that is done.
pub(in crate::proxy) struct Prefilled {
    /// The answer.
    pub(in crate::proxy) body: Bytes,
    /// Prompt tokens that were in the pod's cache, by its own count.
    pub(in crate::proxy) cached_tokens: Option<u32>,
    /// From sending it to its answer, in milliseconds.
    pub(in crate::proxy) took_ms: f64,
    /// The last instant at which the answer had not come.
    pub(in crate::proxy) absent_at: tokio::time::Instant,
}

/// What counts of an answer.
#[derive(Deserialize)]
struct Counted {
    usage: Option<Usage>,
}

/// An answer of one token names the prompt's blocks, some bytes each: a million tokens' take half of
/// this.
const MAX_ANSWER: usize = 4 << 20;

// === impl Legs ===

impl Legs<'_> {
    /// Sends the prefill leg and reads its whole answer. The pod's place is free afterwards.
    pub(super) async fn prefill(&self, from: &mut Placement) -> Result<Prefilled, Failure> {
        let limit = self.gateway.config.split.prefill_timeout.get();
        let (gateway, at) = (self.gateway, (from.endpoint.slot, Ear::Beginning));
        let asked = pin!(self.ask_for_prefill(from));
        let prefilled = timeout(limit, gateway.while_hopeful(at, asked)).await;
        prefilled.unwrap_or(Err(Failure::PrefillTooLate))
    }

    async fn ask_for_prefill(&self, from: &mut Placement) -> Result<Prefilled, Failure> {
        let (gateway, request) = (self.gateway, self.request);
        let more = self.connector.prefill(&self.handoff);
        let api = request.query.api.filter(|_| self.connector.caps_prefill());
        let body = match api {
            Some(api) => prefill_leg(api, &request.body, &more),
            None => with(&request.body, &more),
        };
        let body = body.map_err(|_was_read_before| Failure::Malformed)?;
        let mut head = with_length(&request.head, body.len());
        if let Some(rank) = self.rank
            && head.insert_header("x-data-parallel-rank", rank).is_err()
        {
            tracing::error!("a number was refused by the head that it was written to");
        }
        let pod = &from.endpoint.pod;
        let look_every = Some(Lease::look_every(gateway.config.split.lease.get()));
        let call = Call { look_every, ..gateway.call(pod, &head, &body) };
        let sent_at = Instant::now();
        let answer = Answer::of(&call, gateway.config.deadlines.first_byte.get()).await?;
        if let Some(failure) = answer.complaint_of_leg() {
            return Err(failure);
        }
        let status = answer.head.status;
        if !status.is_success() {
            return Err(Failure::TurnedDown);
        }
        let (now, absent_at) = (Instant::now(), answer.absent_at);
        from.answered(status.as_u16(), now);
        from.first_token(now);
        let Answer { first, mut connection, .. } = answer;
        let body = whole(&mut connection, first).await?;
        let idle = gateway.config.deadlines.upstream_idle.get();
        connection.release(&gateway.connector, idle).await;
        report(gateway.router.pool(), from.endpoint.slot, None);
        let usage = serde_json::from_slice::<Counted>(&body).ok().and_then(|counted| counted.usage);
        let cached_tokens = usage.and_then(|usage| usage.cached_tokens());
        from.usage(usage.and_then(|usage| usage.prompt_tokens), cached_tokens);
        let took_ms = now.saturating_duration_since(sent_at).as_secs_f64() * 1e3;
        gateway.metrics.splits.prefilled(took_ms);
        Ok(Prefilled { body, cached_tokens, took_ms, absent_at })
    }
}

/// The rest of an answer.
pub(super) async fn whole(
    connection: &mut Connection,
    first: Option<Bytes>,
) -> Result<Bytes, Failure> {
    let mut body = BytesMut::from(first.as_deref().unwrap_or_default());
    if first.is_none() {
        return Ok(body.freeze());
    }
    while let Some(bytes) = connection.read().await? {
        if body.len() + bytes.len() > MAX_ANSWER {
            return Err(Failure::Malformed);
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body.freeze())
}
