//! The tokenizers that there are, by model: those at hand from the start, the others as they come.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future;
use parking_lot::Mutex;

use crate::backoff::Backoff;
use crate::story::story;
use crate::tokenize::{
    Engine, Hub, HubError, HubRepo, Memo, MemoReport, TokenizeError, Tokenizer, TokenizerSource,
};

/// Tokenizers by the names of the models that they belong to.
#[derive(Clone, Debug, Default)]
pub struct Tokenizers {
    by_model: HashMap<Arc<str>, Arc<Entry>>,
    memo: Arc<Memo>,
}

/// What there is to say about one model's tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerReport {
    /// The model.
    pub model: Arc<str>,
    /// Where it comes from, as configured.
    pub source: String,
    /// `ready`, `waiting` (it is being downloaded) or `failed` (it will be tried again).
    pub state: &'static str,
    /// Why it failed last, or why the slower library is in use.
    pub trouble: Option<String>,
}

#[derive(Debug)]
struct Entry {
    source: String,
    missing: Option<HubRepo>,
    tokenizer: OnceLock<Arc<Tokenizer>>,
    trouble: Mutex<Option<String>>,
}

/// Why a tokenizer that should come from the hub did not.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Load(#[from] TokenizeError),
    #[error("loading it panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Waits before a download is tried again.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

// === impl Tokenizers ===

impl Tokenizers {
    /// None yet; what they will make is remembered in at most so many bytes.
    #[must_use]
    pub fn new(memo_bytes: usize) -> Self {
        Self { by_model: HashMap::new(), memo: Arc::new(Memo::new(memo_bytes)) }
    }

    /// Loads a model's tokenizer, if it is on this machine. One that must be downloaded first is
    /// left to [`fetch`](Self::fetch).
    ///
    /// # Errors
    /// Missing or malformed files, or a tokenizer that neither engine can load.
    pub fn load(
        &mut self,
        model: &str,
        source: &TokenizerSource,
        hub: &Hub,
    ) -> Result<(), TokenizeError> {
        let (dir, missing) = match source {
            TokenizerSource::Dir(dir) => (Some(dir.clone()), None),
            TokenizerSource::Hub(repo) => match repo.cached(&hub.cache) {
                Some(dir) => (Some(dir), None),
                None => (None, Some(repo.clone())),
            },
        };
        let entry = Entry {
            source: source.to_string(),
            missing,
            tokenizer: OnceLock::new(),
            trouble: Mutex::default(),
        };
        if let Some(dir) = dir {
            entry.set(model, Tokenizer::from_dir(dir)?.with_memo(Arc::clone(&self.memo)));
        }
        self.by_model.insert(model.into(), Arc::new(entry));
        Ok(())
    }

    /// Takes a tokenizer that is loaded already.
    pub fn insert(&mut self, model: &str, tokenizer: Tokenizer) {
        let entry = Entry {
            source: String::new(),
            missing: None,
            tokenizer: OnceLock::from(Arc::new(tokenizer.with_memo(Arc::clone(&self.memo)))),
            trouble: Mutex::default(),
        };
        self.by_model.insert(model.into(), Arc::new(entry));
    }

    /// Downloads what is missing, each model on its own, until all of it is here. A failure is
    /// logged and tried again; until then the model's prompts are matched by their bytes.
    pub async fn fetch(&self, hub: &Hub) {
        let missing = self.by_model.iter().filter_map(|(model, entry)| {
            Some(self.fetch_one(model, entry, entry.missing.as_ref()?, hub))
        });
        future::join_all(missing).await;
    }

    /// Tries once to download each that is missing. The [`report`](Self::report) says what came of it.
    pub async fn fetch_once(&self, hub: &Hub) {
        let missing = self.by_model.iter().filter_map(|(model, entry)| {
            Some(self.try_entry(model, entry, entry.missing.as_ref()?, hub))
        });
        future::join_all(missing).await;
    }

    async fn fetch_one(&self, model: &str, entry: &Entry, repo: &HubRepo, hub: &Hub) {
        let mut backoff = BACKOFF;
        while let Err(error) = self.try_entry(model, entry, repo, hub).await {
            let wait = backoff.next();
            let (retry_s, source) = (wait.as_secs(), &entry.source);
            tracing::warn!(model, %source, error, retry_s, "no tokenizer: its prompts are matched by their bytes");
            tokio::time::sleep(wait).await;
        }
    }

    /// One try; what went wrong, as the report says it too.
    async fn try_entry(
        &self,
        model: &str,
        entry: &Entry,
        repo: &HubRepo,
        hub: &Hub,
    ) -> Result<(), String> {
        match self.try_fetch(repo, hub).await {
            Ok(tokenizer) => {
                entry.set(model, tokenizer);
                Ok(())
            }
            Err(error) => {
                let error = story(&error);
                *entry.trouble.lock() = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn try_fetch(&self, repo: &HubRepo, hub: &Hub) -> Result<Tokenizer, FetchError> {
        let dir: PathBuf = hub.download(repo).await?;
        let loaded = tokio::task::spawn_blocking(move || Tokenizer::from_dir(dir)).await?;
        Ok(loaded?.with_memo(Arc::clone(&self.memo)))
    }

    /// Whether no model has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_model.is_empty()
    }

    /// The tokenizer of a model, if it is here.
    #[must_use]
    pub fn get(&self, model: &str) -> Option<&Arc<Tokenizer>> {
        self.by_model.get(model)?.tokenizer.get()
    }

    /// What is remembered of earlier prompts.
    #[must_use]
    pub fn memo(&self) -> MemoReport {
        self.memo.report()
    }

    /// Which tokenizers are in force, by model.
    #[must_use]
    pub fn report(&self) -> Vec<TokenizerReport> {
        let mut report: Vec<_> =
            self.by_model.iter().map(|(model, entry)| entry.report(model)).collect();
        report.sort_unstable_by(|a, b| a.model.cmp(&b.model));
        report
    }
}

// === impl Entry ===

impl Entry {
    fn set(&self, model: &str, tokenizer: Tokenizer) {
        let (source, engine) = (&self.source, tokenizer.engine());
        let (chat, memo) = (tokenizer.has_template(), tokenizer.remembers());
        tracing::info!(model, %source, ?engine, chat, memo, "tokenizer in force");
        *self.trouble.lock() = None;
        self.tokenizer.get_or_init(|| Arc::new(tokenizer));
    }

    fn report(&self, model: &Arc<str>) -> TokenizerReport {
        let trouble = self.trouble.lock().clone();
        let (state, trouble) = match self.tokenizer.get().map(|tokenizer| tokenizer.engine()) {
            Some(Engine::Fastokens) => ("ready", None),
            Some(Engine::Tokenizers { because }) => ("ready", Some(because)),
            None if trouble.is_none() => ("waiting", None),
            None => ("failed", trouble),
        };
        TokenizerReport { model: Arc::clone(model), source: self.source.clone(), state, trouble }
    }
}
