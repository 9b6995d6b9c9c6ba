//! `/v1/models`, `/v1/models/{id}` and `/health`: what the fleet as a whole can say.

use std::collections::BTreeMap;

use bytes::Bytes;
use pingora_proxy::Session;
use router::Refusal;
use router::pool::{ModelCard, Snapshot};

use super::refuse::Refuse;
use super::relay::End;
use super::{Ctx, Gateway};

impl Gateway {
    /// The union over live pods, each model once.
    pub(super) async fn models(&self, session: &mut Session, ctx: &Ctx) -> Result<End, Refuse> {
        let body = {
            let snapshot = self.router.pool().snapshot();
            let cards = union(&snapshot);
            let cards: Vec<&str> = cards.values().map(|card| &*card.raw).collect();
            format!("{{\"object\":\"list\",\"data\":[{}]}}", cards.join(","))
        };
        Ok(self.json(session, ctx, Bytes::from(body)).await)
    }

    /// One model's card.
    pub(super) async fn model(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        id: String,
    ) -> Result<End, Refuse> {
        let card = {
            let snapshot = self.router.pool().snapshot();
            union(&snapshot).get(&*id).map(|card| Bytes::copy_from_slice(card.raw.as_bytes()))
        };
        let card = card.ok_or_else(|| Refuse::Router(self.router.absent(&id)))?;
        Ok(self.json(session, ctx, card).await)
    }

    /// 200 while any pod can serve.
    pub(super) async fn health(&self, session: &mut Session, ctx: &Ctx) -> Result<End, Refuse> {
        let any = self.router.pool().snapshot().endpoints.iter().any(|pod| pod.can_answer());
        if !any {
            return Err(Refuse::Router(Refusal::NoReadyPod));
        }
        Ok(self.json(session, ctx, Bytes::new()).await)
    }
}

/// Each model once, as the first ready pod that lists it wrote its card.
fn union(snapshot: &Snapshot) -> BTreeMap<&str, &ModelCard> {
    let mut cards = BTreeMap::new();
    for endpoint in snapshot.endpoints.iter().filter(|endpoint| endpoint.can_answer()) {
        for card in &*endpoint.models {
            cards.entry(&*card.id).or_insert(card);
        }
    }
    cards
}
