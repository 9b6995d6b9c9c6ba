//! What the pods' own lists say of a model: its name, its tokenizer, its blocks.

use std::sync::Arc;

use crate::pool::{DEFAULT_BLOCK_TOKENS, Endpoint, ModelCard, Snapshot};
use crate::refusal::Refusal;
use crate::tokenize::Tokenizer;
use crate::tokenizers::Tokenizers;

/// All that pods list.
fn cards(snapshot: &Snapshot) -> impl Iterator<Item = &ModelCard> {
    snapshot.endpoints.iter().flat_map(|endpoint| endpoint.models.iter())
}

fn card<'a>(snapshot: &'a Snapshot, model: &str) -> Option<&'a ModelCard> {
    cards(snapshot).find(|card| &*card.id == model)
}

/// The model that is asked for, or that all pods agree on, as a pod lists it.
pub(super) fn resolve(snapshot: &Snapshot, model: Option<&str>) -> Result<Arc<str>, Refusal> {
    match model {
        Some(model) => named(snapshot, model),
        None => unnamed(snapshot),
    }
}

/// The model of this name as a pod lists it.
pub(super) fn named(snapshot: &Snapshot, model: &str) -> Result<Arc<str>, Refusal> {
    let name = card(snapshot, model).map(|card| Arc::clone(&card.id));
    name.ok_or_else(|| absent(snapshot, model))
}

fn unnamed(snapshot: &Snapshot) -> Result<Arc<str>, Refusal> {
    if cards(snapshot).next().is_none() {
        return Err(Refusal::NoReadyPod);
    }
    if let Some(name) = base(snapshot) {
        return Ok(Arc::clone(name));
    }
    let mut names: Vec<&Arc<str>> = cards(snapshot).map(|card| &card.id).collect();
    names.sort_unstable();
    names.dedup();
    Err(Refusal::ModelMissing { names: names.iter().map(|name| name.to_string()).collect() })
}

/// Why no ready pod lists this model. Where a pod lists it and is not ready, or has never listed
/// any and so may serve it, it is waited for.
pub(super) fn absent(snapshot: &Snapshot, model: &str) -> Refusal {
    let may_serve = |pod: &Arc<Endpoint>| pod.models.is_empty() || pod.serves(model);
    if snapshot.endpoints.is_empty() || snapshot.endpoints.iter().any(may_serve) {
        return Refusal::NoReadyPod;
    }
    Refusal::NoSuchModel { model: model.to_owned() }
}

/// The model of a request that names none, where all pods agree on it. vLLM takes the first name
/// that it was started with: that of the base model, not of an adapter.
fn base(snapshot: &Snapshot) -> Option<&Arc<str>> {
    let mut bases = snapshot.endpoints.iter().filter_map(|endpoint| {
        let base = endpoint.models.iter().find(|card| card.parent.is_none())?;
        Some(&base.id)
    });
    let base = bases.next()?;
    bases.all(|other| other == base).then_some(base)
}

/// The model's tokenizer, or that of the model that it adapts.
pub(super) fn tokenizer<'a>(
    tokenizers: &'a Tokenizers,
    snapshot: &Snapshot,
    model: &str,
) -> Option<&'a Tokenizer> {
    let parent = || tokenizers.get(card(snapshot, model)?.parent.as_deref()?);
    tokenizers.get(model).or_else(parent).map(|tokenizer| &**tokenizer)
}

/// Longest prompt plus answer in tokens, as the model's list entry or its parent's says.
pub(super) fn max_model_len(snapshot: &Snapshot, model: &str) -> Option<u32> {
    let own = card(snapshot, model)?;
    let parent = || card(snapshot, own.parent.as_deref()?)?.max_model_len;
    own.max_model_len.or_else(parent)
}

/// The model's name if it is an adapter of another: the part of a block's identity that vLLM adds
/// for it. Models that share tokens otherwise are on different pods.
pub(super) fn adapter<'a>(snapshot: &Snapshot, model: &'a str) -> Option<&'a str> {
    card(snapshot, model)?.parent.is_some().then_some(model)
}

/// Tokens per block on the pods that serve the model, as the first that told says.
pub(super) fn block_tokens(snapshot: &Snapshot, model: &str) -> u32 {
    let mut pods = snapshot.endpoints.iter().filter(|endpoint| endpoint.serves(model));
    pods.find_map(|endpoint| endpoint.engine.block_size).unwrap_or(DEFAULT_BLOCK_TOKENS)
}

/// How many of our blocks the pod's KV cache can hold.
pub(super) fn capacity_blocks(endpoint: &Endpoint, block_tokens: u32) -> Option<usize> {
    let blocks = endpoint.engine.num_blocks?;
    let tokens = blocks.saturating_mul(u64::from(endpoint.engine.block_size?));
    usize::try_from(tokens / u64::from(block_tokens.max(1))).ok()
}
