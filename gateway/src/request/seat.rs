//! A request's first place at a pod, and the wait for it where every pod is full.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use router::query::Query;
use router::queue::{Client, QueueSettings, Room, Ticket};
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

    /// The client in whose line a request waits, hashed with a key of this process's own. Not by its
    /// session, of which it may name as many as it likes.
    pub(crate) fn client(&self, headers: &HeaderMap, address: Option<IpAddr>) -> Client {
        // Anthropic's clients have theirs in `x-api-key`.
        let key = headers.get(AUTHORIZATION).or_else(|| headers.get("x-api-key"));
        let key = key.map(HeaderValue::as_bytes);
        Client {
            address: self.clients.hash_one(address.map(network)),
            key: self.clients.hash_one(key),
        }
    }

    /// A place for a request that was nowhere yet; none if its client left before there was one.
    ///
    /// # Errors
    /// No pod can take it, or none had a place in time.
    pub(crate) async fn seat(
        &self,
        query: &Query,
        client: Client,
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

/// The part of an address that its owner cannot choose: who has one of IPv6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_of_many_addresses_is_one() {
        let is_one = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|it| network(it.parse().expect("an address")));
            a == b
        };
        assert!(is_one("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
        assert!(is_one("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!is_one("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!is_one("10.0.0.1", "10.0.0.2"));
    }
}
