//! What both doors know of a request, the relay (`proxy`) and the picker (`epp`): how it is read, where it
//! may go, what it holds, and what is told of it at its end. Neither door knows the other.

pub(crate) mod account;
pub(crate) mod body;
pub(crate) mod books;
mod buffer_pool;
pub(crate) mod failure;
pub(crate) mod headers;
pub(crate) mod models;
pub(crate) mod named;
pub(crate) mod observe;
pub(crate) mod read;
pub(crate) mod route;
pub(crate) mod seat;
pub(crate) mod usage;

use std::sync::Arc;

use router::Router;

use crate::config::Config;
use crate::drain::Drain;
use body::BodyBudget;
use books::Books;

/// What a door is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Settings.
    pub config: Arc<Config>,
    /// The brain.
    pub router: Arc<Router>,
    /// Where requests are told of.
    pub books: Arc<Books>,
    /// Whether we are shutting down.
    pub drain: Drain,
    /// Bytes that bodies may take.
    pub bodies: BodyBudget,
}
