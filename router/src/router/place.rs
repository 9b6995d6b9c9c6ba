//! The ways to ask for a place.

use std::sync::Arc;

use kv_index::Slot;

use super::{Placement, Router, Turn};
use crate::decide::Leg;
use crate::policy::{self, PolicyName};
use crate::pool::Endpoint;
use crate::query::Query;
use crate::refusal::Refusal;

// === impl Router ===

impl Router {
    /// Chooses a pod that is not among `tried`, and another that prefills for it if that is worth
    /// it, and books them.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place(&self, query: &Query, tried: &[Slot]) -> Result<Placement, Refusal> {
        self.place_by((&self.settings, Turn::real()), query, (tried, None), None)
    }

    /// Chooses one pod that does it all, for this reason.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place_whole(
        &self,
        query: &Query,
        tried: &[Slot],
        why: &'static str,
    ) -> Result<Placement, Refusal> {
        self.place_by((&self.settings, Turn::real()), query, (tried, None), Some(why))
    }

    /// Chooses any ready pod, the least busy one, for a request that we do not read.
    ///
    /// # Errors
    /// When no pod is left.
    pub fn place_any(&self, query: &Query, tried: &[Slot]) -> Result<Placement, Refusal> {
        let settings = policy::Settings { policy: PolicyName::LeastRequest, ..self.settings };
        self.place_by((&settings, Turn::real()), query, (tried, None), None)
    }

    /// Chooses a second pod that has a free place, for a request whose first token is late; never a
    /// pair.
    ///
    /// # Errors
    /// When no other pod can take it, or none has a free place.
    pub fn place_second(&self, query: &Query, tried: &[Slot]) -> Result<Placement, Refusal> {
        let tried = (tried, Some(&self.queue));
        self.place_by((&self.settings, Turn::real()), query, tried, Some("rescue"))
    }

    /// Whether a ready pod is left that could take it.
    #[must_use]
    pub fn has_another(&self, query: &Query, tried: &[Slot]) -> bool {
        let snapshot = self.pool.snapshot();
        let may = |pod: &Arc<Endpoint>| Leg::Answer.may_take(pod, (query, false), tried);
        snapshot.endpoints.iter().any(may)
    }

    /// Chooses a pod that has a free place, for a request that was nowhere yet.
    ///
    /// # Errors
    /// When no pod can take it; [`Refusal::Full`] if one could that has no free place.
    pub fn place_within(&self, query: &Query) -> Result<Placement, Refusal> {
        let policy = query.api.map_or(PolicyName::LeastRequest, |_read| self.settings.policy);
        let settings = policy::Settings { policy, ..self.settings };
        self.place_by((&settings, Turn::real()), query, (&[], Some(&self.queue)), None)
    }
}
