//! The router behind an Envoy: `hearth epp` speaks the protocol of an Endpoint Picker (Envoy's external
//! processing). Envoy asks once per request where it should go, and carries it itself.

mod call;
mod exchange;
mod health;
mod server;
mod settings;
pub(crate) mod tls;
mod wire;

use std::sync::Arc;

use router::Router;

use crate::config::Config;
use crate::drain::Drain;
use crate::request::Parts;
use crate::request::body::BodyBudget;
use crate::request::books::Books;
use crate::request::seat::Seats;

pub(crate) use server::serve;
pub use settings::{EppSettings, EppTls};
pub use tls::SelfSignedError;

/// Everything that calls share.
#[derive(Debug)]
pub(crate) struct Desk {
    config: Arc<Config>,
    router: Arc<Router>,
    books: Arc<Books>,
    drain: Drain,
    bodies: BodyBudget,
    seats: Seats,
}

// === impl Desk ===

impl Desk {
    /// A desk that answers by this router.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, router, books, drain, bodies } = parts;
        let places = (Arc::clone(&router), Arc::clone(&books.metrics));
        let seats = Seats::new(places, drain.clone(), config.queue);
        Self { config, router, books, drain, bodies, seats }
    }
}
