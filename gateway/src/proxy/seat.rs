//! A request's first place at a pod, and the wait for it where every pod is full.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use router::query::Query;
use router::queue::{QueueSettings, Room, Ticket};
use router::{Placement, Refusal, Router};

use crate::drain::{Drain, Phase};
use crate::refuse::Refuse;
use crate::telemetry::Metrics;

/// The places at all pods, and where requests wait while every pod is full.
#[derive(Debug)]
pub(crate) struct Seats {
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    drain: Drain,
    room: Arc<Room>,
    /// Longest wait.
    wait: Duration,
    /// Hashes what tells clients apart.
    clients: RandomState,
}

/// A place that was taken.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Where.
    pub placement: Placement,
    /// Time that choosing took.
    pub deciding: Duration,
    /// Milliseconds that it was waited for; none if it was free.
    pub queue_ms: Option<f64>,
}

/// Whose turn it is: the first of these that a request has. Not its session: a client may name as
/// many of those as it likes, and would get a turn for each.
#[derive(Hash)]
enum Client<'a> {
    Key(&'a [u8]),
    Address(Option<IpAddr>),
}

// === impl Seats ===

impl Seats {
    /// The places of a router's pods.
    #[must_use]
    pub(crate) fn new(
        (router, metrics): (Arc<Router>, Arc<Metrics>),
        drain: Drain,
        settings: QueueSettings,
    ) -> Self {
        let (room, wait) = (Arc::new(Room::new(settings.waiting)), settings.wait.get());
        Self { router, metrics, drain, room, wait, clients: RandomState::new() }
    }

    /// The client in whose line a request waits, hashed with a key of this process's own.
    pub(crate) fn client(&self, headers: &HeaderMap, address: Option<IpAddr>) -> u64 {
        let key = headers.get(AUTHORIZATION);
        self.clients
            .hash_one(key.map_or(Client::Address(address), |key| Client::Key(key.as_bytes())))
    }

    /// A place for a request that was nowhere yet; none if its client left before there was one.
    ///
    /// # Errors
    /// No pod can take it, or none had a place in time.
    pub(crate) async fn seat(
        &self,
        query: &Query,
        client: u64,
        gone: impl Future<Output = ()>,
    ) -> Result<Option<Seat>, Refuse> {
        let mut deciding = Duration::ZERO;
        if !self.room.has_line(query) {
            match self.place_within(query, &mut deciding) {
                Err(Refusal::Full) => {}
                placed => {
                    return Ok(Some(Seat { placement: placed?, deciding, queue_ms: None }));
                }
            }
        }
        let Some(ticket) = self.room.join(query, client) else {
            self.metrics.queue.refused("full");
            return Err(Refusal::Full.into());
        };
        Box::pin(self.wait(query, ticket, deciding, gone)).await
    }

    async fn wait(
        &self,
        query: &Query,
        ticket: Ticket,
        mut deciding: Duration,
        gone: impl Future<Output = ()>,
    ) -> Result<Option<Seat>, Refuse> {
        let _waiting = self.metrics.queue.waits();
        let since = Instant::now();
        let placement = tokio::select! {
            biased;
            placed = self.in_turn(query, &ticket, &mut deciding) => placed?,
            () = gone => return Ok(None),
            () = self.drain.reached(Phase::Cutting) => return Err(Refuse::Draining),
            () = tokio::time::sleep(self.wait) => {
                self.metrics.queue.refused("deadline");
                return Err(Refusal::Full.into());
            }
        };
        ticket.served();
        let waited_s = since.elapsed().as_secs_f64();
        self.metrics.queue.placed(waited_s);
        Ok(Some(Seat { placement, deciding, queue_ms: Some(waited_s * 1e3) }))
    }

    /// Waits for the turn, then for a place; the pod is chosen when there is one.
    async fn in_turn(
        &self,
        query: &Query,
        ticket: &Ticket,
        deciding: &mut Duration,
    ) -> Result<Placement, Refusal> {
        ticket.turn().await;
        let bookings = Arc::clone(self.router.bookings());
        let mut pods = self.router.pool().changed();
        loop {
            pods.mark_unchanged();
            let mut freed = pin!(bookings.freed());
            // From here on no place is missed that is given back.
            freed.as_mut().enable();
            match self.place_within(query, deciding) {
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

    fn place_within(&self, query: &Query, deciding: &mut Duration) -> Result<Placement, Refusal> {
        let started = Instant::now();
        let placement = self.router.place_within(query);
        *deciding += started.elapsed();
        placement
    }
}
