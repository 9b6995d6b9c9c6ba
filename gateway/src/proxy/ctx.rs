//! What one request carries through Pingora's phases.

use std::sync::Arc;

use kv_index::Slot;
use router::query::Query;
use router::{Placement, Refusal};

use crate::request::account::Account;
use crate::request::books::{Books, Presence};

/// One request. Its account is closed before its presence ends: fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Ctx {
    /// What is logged and counted of it.
    pub account: Account,
    /// The WebSocket that it asks for, and where that goes.
    pub websocket: Websocket,
    /// It is in flight.
    pub presence: Option<Presence>,
}

/// A WebSocket, which Pingora carries.
#[derive(Debug)]
pub(crate) struct Websocket {
    /// What was read of it.
    pub query: Query,
    /// Pods tried for it.
    pub tried: Vec<Slot>,
    /// Its place.
    pub place: Option<Placement>,
    /// Why there is none.
    pub refusal: Option<Refusal>,
}

// === impl Ctx ===

impl Ctx {
    /// A request that just began.
    #[must_use]
    pub(crate) fn new(books: Arc<Books>) -> Self {
        Self { account: Account::new(books), websocket: Websocket::default(), presence: None }
    }
}

// === impl Websocket ===

impl Default for Websocket {
    fn default() -> Self {
        Self { query: Query::any(), tried: Vec::new(), place: None, refusal: None }
    }
}
