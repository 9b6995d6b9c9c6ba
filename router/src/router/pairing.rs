//! One pod or two: the step that looks at all of them and says which places are taken.

use crate::bookings::{Claim, Desk};
use crate::decide::{Leg, View, decide, decide_by};
use crate::openai::Api;
use crate::policy::{self, Ask, Candidate, PolicyName};
use crate::pool::Role;
use crate::query::Query;
use crate::split::{self, Pair, Split, Verdict};

use super::{Router, Turn};

/// What is to be placed, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a policy::Settings,
    pub(super) turn: Turn<'a>,
    pub(super) view: &'a View<'a>,
    /// Why it must not be split, if that is known before.
    pub(super) whole: Option<&'static str>,
}

/// A row for every pod that may answer, and for every pod that may prefill.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) answering: Vec<Candidate>,
    pub(super) prefilling: Vec<Candidate>,
}

/// The rows that were chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Of [`Tables::answering`].
    pub(super) row: usize,
    /// Of [`Tables::prefilling`].
    pub(super) prefill: Option<usize>,
    /// What is told of it; none where no pod only prefills.
    pub(super) split: Option<Split>,
}

/// What counts as a pod's recent work: all that is computed anew, and not whole blocks of it. Conversations
/// whose turns fill none would leave no trace, and the pod that once had a few tokens more than another
/// would never get a new one again (99 of 100 went elsewhere).
pub(super) fn new_tokens(query: &Query, row: &Candidate) -> u32 {
    if query.api.is_some_and(Api::prefills) { row.uncached_tokens } else { 0 }
}

// === impl Router ===

impl Router {
    /// Chooses the pods. Nothing else is booked meanwhile.
    pub(super) fn choose(
        &self,
        wanted: &Wanted<'_>,
        desk: &mut Desk,
        tables: &mut Tables,
    ) -> Option<(Chosen, Claim, Option<Claim>)> {
        let Wanted { settings, turn, view, .. } = *wanted;
        let has_session = view.query.session.is_some();
        let ask = Ask { has_session, ticket: desk.ticket(), dice: turn.dice };
        let answering = &mut tables.answering;
        let load = |slot| desk.admit(slot);
        let alone = match turn.rule {
            None => decide(settings, (view, Leg::Answer), ask, load, answering)?,
            Some(rule) => decide_by(rule, view, ask, load, answering)?,
        };
        let mut chosen = Chosen { row: alone, prefill: None, split: None };
        if view.snapshot.endpoints.iter().any(|endpoint| endpoint.pod.role == Role::Prefill) {
            let split = self.weigh(wanted, (ask, alone), desk, tables);
            chosen = split
                .unwrap_or_else(|verdict| Chosen { split: Some(Split::whole(verdict)), ..chosen });
        }
        let row = &tables.answering[chosen.row];
        let claim = |row: &Candidate| {
            let claim = Claim::of(row.slot, row.cold_tokens, row.uncached_tokens);
            Claim { new_tokens: new_tokens(view.query, row), ..claim }
        };
        let Some(from) = chosen.prefill else {
            let claim = claim(row);
            return Some((chosen, claim, None));
        };
        let (slot, new_tokens) = (row.slot, new_tokens(view.query, row));
        let answer = Claim { slot, cold_tokens: 0, computed_tokens: None, new_tokens };
        let prefill = claim(&tables.prefilling[from]);
        Some((chosen, answer, Some(prefill)))
    }

    /// Weighs pairs of pods; the reason in a word where there is nothing to weigh.
    fn weigh(
        &self,
        wanted: &Wanted<'_>,
        (ask, alone): (Ask, usize),
        desk: &mut Desk,
        tables: &mut Tables,
    ) -> Result<Chosen, &'static str> {
        let Wanted { settings, turn, view, whole } = *wanted;
        if let Some(why) = whole {
            return Err(why);
        }
        if self.split.connector.connector().is_none() {
            return Err("off");
        }
        if view.query.indivisible.is_some() {
            return Err("indivisible");
        }
        let Tables { answering, prefilling } = tables;
        decide(settings, (view, Leg::Prefill), ask, |slot| desk.admit(slot), prefilling)
            .ok_or("no-prefill-pod")?;
        let role = |row: &Candidate| view.snapshot.endpoints[row.position].pod.role;
        let has_costs = settings.policy == PolicyName::Warm;
        let (rates, alone) = (self.transfers.lock().rates(turn.now), (alone, has_costs));
        let place = |row: &Candidate| view.snapshot.endpoints[row.position].pod.topology.as_deref();
        let addr = |row: &Candidate| view.snapshot.endpoints[row.position].pod.addr;
        let answering = (&answering[..], role);
        match split::weigh(&self.split, (rates, place), answering, alone, prefilling) {
            Verdict::Split(Pair { decode, prefill, terms }) => {
                let prefill_addr = Some(addr(&prefilling[prefill]));
                let verdict = Split::SPLIT;
                let split = Split { verdict, prefill: prefill_addr, terms: Some(terms) };
                Ok(Chosen { row: decode, prefill: Some(prefill), split: Some(split) })
            }
            Verdict::NoGain(Pair { terms, .. }) => {
                let split = Split { terms: Some(terms), ..Split::whole("no-gain") };
                Ok(Chosen { row: alone.0, prefill: None, split: Some(split) })
            }
            Verdict::Short => Err("short"),
        }
    }
}
