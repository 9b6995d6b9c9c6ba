//! The ways to ask for a place.

use kv_index::Slot;

use super::{Placement, Router, Turn};
use crate::decide::Leg;
use crate::policy::{self, PolicyName};
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
        self.place_by((&self.settings_for(query), Turn::real()), query, (tried, None), None)
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
        self.place_by((&self.settings_for(query), Turn::real()), query, (tried, None), Some(why))
    }

    /// Chooses a second pod that has a free place, for a request whose first token is late; never a
    /// pair.
    ///
    /// # Errors
    /// When no other pod can take it, or none has a free place.
    pub fn place_second(&self, query: &Query, tried: &[Slot]) -> Result<Placement, Refusal> {
        let tried = (tried, Some(&self.queue));
        self.place_by((&self.settings_for(query), Turn::real()), query, tried, Some("rescue"))
    }

    /// Whether a ready pod is left that could take it.
    #[must_use]
    pub fn has_another(&self, query: &Query, tried: &[Slot]) -> bool {
        let snapshot = self.pool.snapshot();
        let ready = (query, false);
        snapshot.endpoints.iter().any(|endpoint| Leg::Answer.may_take(endpoint, ready, tried))
    }

    /// Chooses a pod that has a free place, for a request that was nowhere yet.
    ///
    /// # Errors
    /// When no pod can take it; [`Refusal::Full`] if one could that has no free place.
    pub fn place_within(&self, query: &Query) -> Result<Placement, Refusal> {
        let within = (&[][..], Some(&self.queue));
        self.place_by((&self.settings_for(query), Turn::real()), query, within, None)
    }

    /// A request that we do not read goes to the pod that is least busy, whatever the policy: of its
    /// prompt nothing is known.
    pub(super) fn settings_for(&self, query: &Query) -> policy::Settings {
        let policy = query.api.map_or(PolicyName::LeastRequest, |_read| self.settings.policy);
        policy::Settings { policy, ..self.settings }
    }
}
