//! Downloading a tokenizer from the Hugging Face hub, into the cache that all its tools share.

use std::path::PathBuf;
use std::time::Duration;

use hf_hub::api::tokio::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::source::HubRepo;

/// The hub and its cache, as `huggingface_hub`'s environment variables set them.
#[derive(Clone)]
pub struct Hub {
    /// Where repositories are kept: `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or
    /// `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT`; none: the crate's own.
    pub endpoint: Option<String>,
    /// `HF_TOKEN`; none: the file `token` beside the cache, if there is one.
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE`: nothing is downloaded.
    pub offline: bool,
}

/// Why a tokenizer could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The cache has it not, and nothing else may be asked.
    #[error("it is not in {}, and HF_HUB_OFFLINE forbids to download it", cache.display())]
    Offline {
        /// The cache.
        cache: PathBuf,
    },
    /// The hub, the way there, or the cache's disk.
    #[error("{file}: {source}")]
    Download {
        /// Which file.
        file: &'static str,
        /// Why.
        source: Box<ApiError>,
    },
    /// It took too long.
    #[error("not downloaded within {0:?}")]
    TooLong(Duration),
}

/// The longest download: a `tokenizer.json` is 1 to 30 MB.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// Without it there is no tokenizer.
const NEEDED: &str = "tokenizer.json";

/// A repository may lack these.
const OPTIONAL: [&str; 2] = ["tokenizer_config.json", "chat_template.jinja"];

// === impl Hub ===

impl Hub {
    /// As the environment says.
    #[must_use]
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = || {
            var("HF_HOME").map_or_else(
                // The library's own default panics without a home: a container may have none.
                || {
                    let home = std::env::home_dir().unwrap_or_else(std::env::temp_dir);
                    home.join(".cache/huggingface/hub")
                },
                |home| PathBuf::from(home).join("hub"),
            )
        };
        Self {
            cache: var("HF_HUB_CACHE").map_or_else(home, PathBuf::from),
            endpoint: var("HF_ENDPOINT"),
            token: var("HF_TOKEN"),
            offline: var("HF_HUB_OFFLINE")
                .is_some_and(|value| !matches!(&*value, "0" | "false" | "no")),
        }
    }

    /// Downloads what a tokenizer needs, and tells the folder.
    ///
    /// # Errors
    /// See [`HubError`].
    pub async fn download(&self, repo: &HubRepo) -> Result<PathBuf, HubError> {
        if self.offline {
            return Err(HubError::Offline { cache: self.cache.clone() });
        }
        let download = tokio::time::timeout(DOWNLOAD_LIMIT, self.download_all(repo));
        download.await.unwrap_or(Err(HubError::TooLong(DOWNLOAD_LIMIT)))
    }

    async fn download_all(&self, repo: &HubRepo) -> Result<PathBuf, HubError> {
        let failed = |file| move |source| HubError::Download { file, source: Box::new(source) };
        let api = self.api(repo).map_err(failed(NEEDED))?;
        // The needed one last: a snapshot that has it is taken as whole.
        for file in OPTIONAL {
            match api.download(file).await {
                Err(ApiError::RequestError(error))
                    if error.status().is_some_and(|it| it == 404) => {}
                fetched => drop(fetched.map_err(failed(file))?),
            }
        }
        let path = api.download(NEEDED).await.map_err(failed(NEEDED))?;
        Ok(path.parent().map(PathBuf::from).unwrap_or_default())
    }

    fn api(&self, repo: &HubRepo) -> Result<ApiRepo, ApiError> {
        let builder = ApiBuilder::from_cache(Cache::new(self.cache.clone())).with_progress(false);
        let builder = match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/').to_owned()),
            None => builder,
        };
        let builder = match &self.token {
            Some(token) => builder.with_token(Some(token.clone())),
            None => builder,
        };
        let (id, revision) = (repo.id.clone(), repo.revision.clone());
        Ok(builder.build()?.repo(Repo::with_revision(id, RepoType::Model, revision)))
    }
}

/// Without the token.
impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cache, endpoint, offline, .. } = self;
        let mut shown = f.debug_struct("Hub");
        shown.field("cache", cache).field("endpoint", endpoint).field("offline", offline);
        shown.finish_non_exhaustive()
    }
}
