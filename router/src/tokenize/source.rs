//! Where a model's tokenizer comes from: a folder, or a repository of the Hugging Face hub, which is
//! looked for in the local cache first.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// A tokenizer's source as it is written in the configuration: `DIR` or `hf:REPO[@REVISION]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TokenizerSource {
    /// A folder with `tokenizer.json` and the chat template.
    Dir(PathBuf),
    /// A repository of the hub.
    Hub(HubRepo),
}

/// A model repository at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRepo {
    /// `NAME` or `OWNER/NAME`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// A source that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a folder nor `hf:REPO[@REVISION]` with REPO like `owner/name`")]
pub struct BadSource(String);

/// What `hf:` stands before.
const HUB: &str = "hf:";

/// The revision of a repository that is named without one.
const MAIN: &str = "main";

// === impl TokenizerSource ===

impl FromStr for TokenizerSource {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let bad = || BadSource(text.to_owned());
        let Some(repo) = text.strip_prefix(HUB) else {
            return if text.is_empty() { Err(bad()) } else { Ok(Self::Dir(text.into())) };
        };
        let (id, revision) = repo.split_once('@').unwrap_or((repo, MAIN));
        let is_name = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(is_plain)
        };
        let is_id = id.split('/').all(is_name) && id.split('/').count() <= 2;
        let is_revision = !revision.is_empty() && revision.split('/').all(is_name);
        if !is_id || !is_revision {
            return Err(bad());
        }
        Ok(Self::Hub(HubRepo { id: id.to_owned(), revision: revision.to_owned() }))
    }
}

impl TryFrom<String> for TokenizerSource {
    type Error = BadSource;

    fn try_from(text: String) -> Result<Self, BadSource> {
        text.parse()
    }
}

impl From<TokenizerSource> for String {
    fn from(source: TokenizerSource) -> Self {
        source.to_string()
    }
}

impl fmt::Display for TokenizerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(dir) => dir.display().fmt(f),
            Self::Hub(HubRepo { id, revision }) if revision == MAIN => write!(f, "{HUB}{id}"),
            Self::Hub(HubRepo { id, revision }) => write!(f, "{HUB}{id}@{revision}"),
        }
    }
}

impl JsonSchema for TokenizerSource {
    fn schema_name() -> Cow<'static, str> {
        "TokenizerSource".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

// === impl HubRepo ===

impl HubRepo {
    /// The repository's snapshot in a cache as `huggingface_hub` lays it out, if the tokenizer is
    /// there: `models--OWNER--NAME/snapshots/COMMIT`, where `refs/REVISION` names the commit.
    #[must_use]
    pub fn cached(&self, cache: &Path) -> Option<PathBuf> {
        let repo = cache.join(format!("models--{}", self.id.replace('/', "--")));
        let commit = std::fs::read_to_string(repo.join("refs").join(&self.revision));
        let commit = commit.map_or_else(|_| self.revision.clone(), |it| it.trim().to_owned());
        let is_name = !commit.is_empty() && !commit.contains(['/', '\\']) && commit != "..";
        let snapshot = is_name.then(|| repo.join("snapshots").join(commit))?;
        snapshot.join("tokenizer.json").is_file().then_some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_are_written() {
        for text in
            ["models/tiny", "/models/a:b", "hf:gpt2", "hf:owner/name@v1.0", "hf:o/n@refs/pr/1"]
        {
            let source: TokenizerSource = text.parse().expect("it is a source");
            assert_eq!(source.to_string(), text);
            assert_eq!(matches!(source, TokenizerSource::Hub(_)), text.starts_with("hf:"));
        }
        assert_eq!(
            "hf:a/b@main".parse::<TokenizerSource>().map(|it| it.to_string()),
            Ok("hf:a/b".into())
        );
        for text in ["", "hf:", "hf:a/b/c", "hf:../x", "hf:a/b@", "hf:a/b@../x", "hf:a b", "hf:/x"]
        {
            assert!(text.parse::<TokenizerSource>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_cached_snapshot_is_found_by_branch_and_by_commit() {
        let cache = tempfile::tempdir().expect("a folder");
        let repo = cache.path().join("models--owner--name");
        let snapshot = repo.join("snapshots/abc123");
        std::fs::create_dir_all(&snapshot).expect("created");
        std::fs::create_dir_all(repo.join("refs")).expect("created");
        std::fs::write(repo.join("refs/main"), "abc123\n").expect("written");
        let at = |revision: &str| {
            HubRepo { id: "owner/name".into(), revision: revision.into() }.cached(cache.path())
        };
        assert_eq!(at("main"), None, "weights alone are no tokenizer");
        std::fs::write(snapshot.join("tokenizer.json"), "{}").expect("written");
        assert_eq!(at("main").as_deref(), Some(&*snapshot));
        assert_eq!(at("abc123").as_deref(), Some(&*snapshot));
        assert_eq!(at("v2"), None);
    }
}
