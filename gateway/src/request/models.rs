//! What the fleet as a whole can say of its models, and paths that name one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Uri};
use router::aliases::ModelNames;
use router::pool::Snapshot;
use router::{Refusal, Router};

use super::account::Account;
use super::route;
use crate::refuse::Refuse;

/// The union over live pods, each model once, as `/v1/models` lists it.
pub(crate) fn list(router: &Router) -> Bytes {
    let snapshot = router.pool().snapshot();
    let cards = union(&snapshot, router.names());
    let cards: Vec<&str> = cards.values().map(|card| &**card).collect();
    Bytes::from(format!("{{\"object\":\"list\",\"data\":[{}]}}", cards.join(",")))
}

/// One model's card.
///
/// # Errors
/// No pod lists it.
pub(crate) fn one(router: &Router, id: &str) -> Result<Bytes, Refuse> {
    let snapshot = router.pool().snapshot();
    let cards = union(&snapshot, router.names());
    let card = cards.get(id).map(|card| Bytes::copy_from_slice(card.as_bytes()));
    card.ok_or_else(|| Refuse::Router(router.absent(id)))
}

/// Whether any pod can serve.
///
/// # Errors
/// None can.
pub(crate) fn can_answer(router: &Router) -> Result<(), Refuse> {
    let any = router.pool().snapshot().answering().next().is_some();
    any.then_some(()).ok_or(Refuse::Router(Refusal::NoReadyPod))
}

/// The target of a request whose path names a model and means nothing itself, without that name, which
/// is noted.
pub(crate) fn without_name(
    names: &ModelNames,
    (method, uri): (&Method, &Uri),
    account: &mut Account,
) -> Option<Uri> {
    if names.paths.is_empty() || !route::is_unknown(method, uri.path()) {
        return None;
    }
    let (name, rest) = names.strip(uri.path_and_query().map_or("", PathAndQuery::as_str))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(rest).ok();
    let stripped = Uri::from_parts(parts).ok()?;
    account.asked = Some(name.into());
    Some(stripped)
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
