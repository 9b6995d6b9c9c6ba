//! `/v1/models`, `/v1/models/{id}` and `/health`: what the fleet as a whole can say; and paths that
//! name a model.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use pingora_proxy::Session;
use router::Refusal;
use router::aliases::ModelNames;
use router::pool::Snapshot;

use super::relay::End;
use super::route;
use super::{Ctx, Gateway};
use crate::refuse::Refuse;

impl Gateway {
    /// The union over live pods, each model once.
    pub(super) async fn models(&self, session: &mut Session, ctx: &Ctx) -> Result<End, Refuse> {
        let body = {
            let snapshot = self.router.pool().snapshot();
            let cards = union(&snapshot, self.router.names());
            let cards: Vec<&str> = cards.values().map(|card| &**card).collect();
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
            let cards = union(&snapshot, self.router.names());
            cards.get(&*id).map(|card| Bytes::copy_from_slice(card.as_bytes()))
        };
        let card = card.ok_or_else(|| Refuse::Router(self.router.absent(&id)))?;
        Ok(self.json(session, ctx, card).await)
    }

    /// Takes the name of a model out of a path that means nothing itself.
    pub(super) fn take_name(&self, session: &mut Session, ctx: &mut Ctx) {
        let names = self.router.names();
        let head = session.req_header_mut();
        if names.paths.is_empty() || !route::is_unknown(&head.method, head.uri.path()) {
            return;
        }
        let sent = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let Some((name, rest)) = names.strip(sent) else { return };
        let mut parts = head.uri.clone().into_parts();
        parts.path_and_query = PathAndQuery::try_from(rest).ok();
        if let Ok(uri) = Uri::from_parts(parts) {
            (ctx.asked, ctx.sent_path) = (Some(name.into()), Some(head.uri.path().into()));
            head.set_uri(uri);
        }
    }

    /// 200 while any pod can serve.
    pub(super) async fn health(&self, session: &mut Session, ctx: &Ctx) -> Result<End, Refuse> {
        if self.router.pool().snapshot().answering().next().is_none() {
            return Err(Refuse::Router(Refusal::NoReadyPod));
        }
        Ok(self.json(session, ctx, Bytes::new()).await)
    }
}

/// Each model once, as the first ready pod that lists it wrote its card, and our own names of them.
fn union<'a>(snapshot: &'a Snapshot, names: &'a ModelNames) -> BTreeMap<&'a str, Cow<'a, str>> {
    let (mut cards, mut lengths) = (BTreeMap::new(), BTreeMap::new());
    for endpoint in snapshot.answering() {
        for card in &*endpoint.models {
            cards.entry(&*card.id).or_insert(Cow::Borrowed(&*card.raw));
            lengths.entry(&*card.id).or_insert(card.max_model_len);
        }
    }
    for (alias, targets) in &names.aliases {
        let served = targets.iter().filter(|(_, weight)| **weight > 0);
        let served: Vec<_> = served.filter_map(|(model, _)| lengths.get(&**model)).collect();
        if !served.is_empty() {
            // What fits whichever it will be.
            let length = served.into_iter().copied().flatten().min();
            cards.insert(alias, Cow::Owned(card(alias, length)));
        }
    }
    cards
}

/// An alias's card, with the members that clients look at.
fn card(alias: &str, max_model_len: Option<u32>) -> String {
    let card = serde_json::json!({
        "id": alias, "object": "model", "created": 0, "owned_by": "hearth", "root": alias,
        "parent": null, "max_model_len": max_model_len,
    });
    card.to_string()
}
