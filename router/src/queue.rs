//! Where requests wait while every pod that could take them is full.
//!
//! A pod is chosen when a place is free, and not before: with what is known then. Whoever is next
//! listens for places; the others only for their turn.

mod order;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use self::order::Order;
use crate::query::Query;
use crate::subset::Subset;
use crate::units::HumanDuration;

/// How many requests a pod gets at once, and what happens to more.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueSettings {
    /// Requests that may wait here at once; more are refused (429). 0: none waits, and pods get
    /// everything at once.
    pub waiting: usize,
    /// Longest wait; after it the request is refused (429).
    pub wait: HumanDuration,
    /// Requests that a pod gets at once. 0: what its engine has been seen to run while others waited
    /// inside it; as many as there are until that was seen.
    pub per_pod: u32,
    /// Of a capacity that was learned, so much more is sent (0.25: a quarter), so that the engine always
    /// finds the next request waiting.
    pub slack: f64,
}

/// Whose turn it is, hashed. Addresses take turns, and within each its keys do: a key costs nothing to
/// invent, and an address does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Where it is.
    pub address: u64,
    /// What it calls itself.
    pub key: u64,
}

/// The room in which requests wait, in a line of its own for each model, and for each choice of pods
/// that is left to them: who waits for other pods holds nobody up.
#[derive(Debug, Default)]
pub struct Room {
    lines: Mutex<Lines>,
    waiting: AtomicUsize,
    places: usize,
}

#[derive(Debug, Default)]
struct Lines {
    by_pods: HashMap<Pods, Order<Arc<Notify>>>,
    numbers: u64,
}

/// The pods that those of one line wait for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pods {
    /// They serve this model; empty: any will do.
    model: Arc<str>,
    subset: Option<Subset>,
}

/// A request's place in its line; left when dropped, for whatever reason.
#[derive(Debug)]
pub struct Ticket {
    room: Arc<Room>,
    pods: Pods,
    place: order::Place,
    turn: Arc<Notify>,
    served: bool,
}

// === impl QueueSettings ===

impl Default for QueueSettings {
    fn default() -> Self {
        Self { waiting: 1024, wait: HumanDuration::from_secs(60), per_pod: 0, slack: 0.25 }
    }
}

impl QueueSettings {
    /// Requests that a pod may have at once whose engine runs so many; none: as many as there are.
    #[must_use]
    pub fn places(&self, capacity: Option<u32>) -> Option<u32> {
        if self.waiting == 0 {
            return None;
        }
        if self.per_pod > 0 {
            return Some(self.per_pod);
        }
        let capacity = f64::from(capacity?);
        let more = (capacity * self.slack.max(0.0)).ceil().max(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it saturates, and is more than 0"
        )]
        let places = (capacity + more) as u32;
        Some(places)
    }
}

// === impl Pods ===

impl Pods {
    fn of(query: &Query) -> Self {
        Self { model: query.model.clone().unwrap_or_default(), subset: query.subset.clone() }
    }
}

// === impl Room ===

impl Room {
    /// A room for so many.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places, ..Self::default() }
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether others wait for the same pods: who comes now waits behind them, even if a place is free.
    #[must_use]
    pub fn has_line(&self, query: &Query) -> bool {
        self.waiting() > 0 && self.lines.lock().by_pods.contains_key(&Pods::of(query))
    }

    /// Takes a place in the request's line for this client; none if the room is full.
    pub fn join(self: &Arc<Self>, query: &Query, client: Client) -> Option<Ticket> {
        let has_room = |waiting| (waiting < self.places).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, has_room).ok()?;
        let (turn, pods) = (Arc::new(Notify::new()), Pods::of(query));
        let mut lines = self.lines.lock();
        lines.numbers += 1;
        let place = (client, lines.numbers);
        lines.by_pods.entry(pods.clone()).or_default().join(place, Arc::clone(&turn));
        Some(Ticket { room: Arc::clone(self), pods, place, turn, served: false })
    }
}

// === impl Ticket ===

impl Ticket {
    /// Resolves when it is this request's turn: at once if it is already.
    pub async fn turn(&self) {
        while !self.is_next() {
            self.turn.notified().await;
        }
    }

    fn is_next(&self) -> bool {
        let lines = self.room.lines.lock();
        let next = lines.by_pods.get(&self.pods).and_then(Order::next);
        next.is_some_and(|(place, _)| place == self.place)
    }

    /// It got what it waited for.
    pub fn served(mut self) {
        self.served = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut lines = self.room.lines.lock();
        if let Some(line) = lines.by_pods.get_mut(&self.pods) {
            line.leave(self.place, self.served);
            if let Some((_, turn)) = line.next() {
                turn.notify_one();
            } else {
                lines.by_pods.remove(&self.pods);
            }
        }
        drop(lines);
        self.room.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
