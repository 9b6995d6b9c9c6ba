//! Other pods, for a request that has one already.

use std::sync::Arc;
use std::time::Instant;

use kv_index::Slot;

use super::{Placement, Router, SCRATCH, Turn};
use crate::belief::Beliefs;
use crate::decide::{Leg, View, decide};
use crate::policy::Ask;
use crate::pool::Endpoint;
use crate::query::Query;
use crate::refusal::Refusal;

// === impl Router ===

impl Router {
    /// Chooses one pod that has a free place and does it all, for this reason.
    ///
    /// # Errors
    /// When no pod is left, or none has a free place.
    pub fn place_free(
        &self,
        query: &Query,
        tried: &[Slot],
        why: &'static str,
    ) -> Result<Placement, Refusal> {
        let within = (tried, Some(&self.queue));
        self.place_by((&self.settings_for(query), Turn::real()), query, within, Some(why))
    }

    /// The pods that would be chosen one after the other, at most so many, if those before had failed.
    /// Nothing is booked, and nobody will know that it was asked.
    #[must_use]
    pub fn ranked(&self, query: &Query, tried: &[Slot], most: usize) -> Vec<Arc<Endpoint>> {
        let (snapshot, settings) = (self.pool.snapshot(), self.settings_for(query));
        let now_ms = self.ms_at(Instant::now());
        let ask = Ask { has_session: query.session.is_some(), ticket: 0, dice: rand::random() };
        let (mut tried, mut ranked) = (tried.to_vec(), Vec::new());
        SCRATCH.with_borrow_mut(|(exact, approximate, tables)| {
            let slots = snapshot.endpoints.iter().map(|endpoint| endpoint.slot);
            self.memory.overlap(&query.prompt.milestones, slots, now_ms, approximate);
            let exact = (!query.prompt.chain.is_empty()).then(|| {
                self.knowledge().exact.overlap(&query.prompt.chain, exact);
                &*exact
            });
            let (approximate, at_need, queue) = (&*approximate, false, None);
            while ranked.len() < most {
                let beliefs = Beliefs { exact, approximate, now_ms };
                let view =
                    View { snapshot: &snapshot, beliefs, query, tried: &tried, at_need, queue };
                let (rows, load) = (&mut tables.answering, |slot| self.bookings.load(slot));
                let Some(row) = decide(&settings, (&view, Leg::Answer), ask, load, rows) else {
                    break;
                };
                let row = &rows[row];
                tried.push(row.slot);
                ranked.push(Arc::clone(&snapshot.endpoints[row.position]));
            }
        });
        ranked
    }
}
