//! A request's first place at a pod, and the wait for it where every pod is full.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::AUTHORIZATION;
use pingora_proxy::Session;
use router::query::Query;
use router::queue::Ticket;
use router::{Placement, Refusal};

use super::Gateway;
use super::ctx::Ctx;
use super::relay::gone;
use crate::drain::Phase;
use crate::refuse::Refuse;

/// Whose turn it is: the first of these that a request has. Not its session: a client may name as
/// many of those as it likes, and would get a turn for each.
#[derive(Hash)]
enum Client<'a> {
    Key(&'a [u8]),
    Address(Option<IpAddr>),
}

// === impl Gateway ===

impl Gateway {
    /// A place for a request that was nowhere yet; none if its client left before there was one.
    pub(super) async fn seat(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        query: &Query,
    ) -> Result<Option<Placement>, Refuse> {
        let model = query.model.clone().unwrap_or_default();
        if !self.room.has_line(&model) {
            match self.place_within(ctx, query) {
                Err(Refusal::Full) => {}
                placed => return Ok(Some(placed?)),
            }
        }
        let Some(ticket) = self.room.join(&model, self.client(session)) else {
            self.metrics.queue.refused("full");
            return Err(Refusal::Full.into());
        };
        Box::pin(self.wait(session, ctx, query, ticket)).await
    }

    async fn wait(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        query: &Query,
        ticket: Ticket,
    ) -> Result<Option<Placement>, Refuse> {
        let _waiting = self.metrics.queue.waits();
        let since = Instant::now();
        let placed = tokio::select! {
            biased;
            placed = self.in_turn(ctx, query, &ticket) => placed?,
            () = gone(session) => return Ok(None),
            () = self.drain.reached(Phase::Cutting) => return Err(Refuse::Draining),
            () = tokio::time::sleep(self.config.queue.wait.get()) => {
                self.metrics.queue.refused("deadline");
                return Err(Refusal::Full.into());
            }
        };
        ticket.served();
        let waited_s = since.elapsed().as_secs_f64();
        ctx.queue_ms = Some(waited_s * 1e3);
        self.metrics.queue.placed(waited_s);
        Ok(Some(placed))
    }

    /// Waits for the turn, then for a place; the pod is chosen when there is one.
    async fn in_turn(
        &self,
        ctx: &mut Ctx,
        query: &Query,
        ticket: &Ticket,
    ) -> Result<Placement, Refusal> {
        ticket.turn().await;
        let bookings = Arc::clone(self.router.bookings());
        let mut pods = self.router.pool().changed();
        loop {
            pods.mark_unchanged();
            let mut freed = pin!(bookings.freed());
            // From here on no place is missed that is given back.
            freed.as_mut().enable();
            match self.place_within(ctx, query) {
                Err(Refusal::Full) => {}
                placed => return placed,
            }
            tokio::select! {
                () = freed => {}
                // More pods, or pods that have shown more room. An error is a pool that has ended,
                // which changes no more.
                Ok(()) = pods.changed() => {}
            }
        }
    }

    fn place_within(&self, ctx: &mut Ctx, query: &Query) -> Result<Placement, Refusal> {
        let started = Instant::now();
        let placement = self.router.place_within(query);
        ctx.deciding += started.elapsed();
        placement
    }

    /// The client in whose line a request waits, hashed with a key of this process's own.
    fn client(&self, session: &Session) -> u64 {
        let key = session.req_header().headers.get(AUTHORIZATION);
        let address = || session.client_addr().and_then(|addr| Some(addr.as_inet()?.ip()));
        self.clients.hash_one(
            key.map_or_else(|| Client::Address(address()), |key| Client::Key(key.as_bytes())),
        )
    }
}
