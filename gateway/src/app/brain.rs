//! The brain and what it reads with.

use std::sync::Arc;

use futures_util::future;
use router::bookings::Bookings;
use router::feed::kv_events::KvSink;
use router::pool::{self, Hooks, PoolGuard};
use router::tokenize::Hub;
use router::{Knowledge, Router, Tokenizers};

use super::StartError;
use crate::config::Config;

/// What decides: the pool that discovery fills, and what is known of its pods, forgotten as they go.
pub(super) fn brain(
    config: &Config,
    tokenizers: Tokenizers,
) -> Result<(Arc<Router>, PoolGuard), StartError> {
    let (exact, approximate) = (config.kv_index.exact(), config.kv_index.approximate());
    let knowledge = Arc::new(Knowledge::new(exact, approximate));
    let bookings = Arc::<Bookings>::default();
    let (pool, guard) = pool::start_with_events(
        config.pool.clone(),
        config.discovery(),
        (config.kv_events.clone(), Arc::clone(&knowledge) as Arc<dyn KvSink>),
        forgetting(&knowledge, &bookings),
    )?;
    let router = Router::new(pool, config.routing, (knowledge, bookings), tokenizers)
        .with_split(config.split)
        .with_queue(config.queue)
        .with_names(config.model_names.clone());
    Ok((Arc::new(router), guard))
}

/// Forgets pods as they go, and what they held as they lose it.
fn forgetting(knowledge: &Arc<Knowledge>, bookings: &Arc<Bookings>) -> Hooks {
    let (known, lost, bookings) =
        (Arc::clone(knowledge), Arc::clone(knowledge), Arc::clone(bookings));
    Hooks {
        removed: Box::new(move |slot| {
            known.remove(slot);
            bookings.forget(slot);
        }),
        // What the pod told is its stream's business, which sees the end of a process too.
        cache_lost: Box::new(move |slot| lost.approximate.clear(slot)),
    }
}

/// Downloads the tokenizers that are not on this machine, then waits for the end.
pub(super) async fn fetch_tokenizers(tokenizers: Tokenizers) {
    tokenizers.fetch(&Hub::from_env()).await;
    future::pending::<()>().await;
}

/// The tokenizers that are on this machine.
pub(crate) fn tokenizers(config: &Config) -> Result<Tokenizers, StartError> {
    let (mut tokenizers, hub) =
        (Tokenizers::new(config.tokenizing.memo_bytes.len()), Hub::from_env());
    for (model, from) in &config.tokenizers {
        tokenizers.load(model, from, &hub).map_err(|source| StartError::Tokenizer {
            model: model.clone(),
            from: from.clone(),
            source,
        })?;
    }
    Ok(tokenizers)
}
