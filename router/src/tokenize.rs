//! Text to token ids, exactly as the pod will do it: chat template, then tokenizer.
//!
//! No HTTP and no routing: JSON values in, ids out. The rules for messages (how parts are joined,
//! what `null` content means) are vLLM's and were observed on a real server; see [`ChatRequest`].

mod chat;
mod cuts;
mod encoder;
mod fast;
mod hub;
mod memo;
mod pieces;
mod python_json;
mod source;
mod stream;
mod template;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

pub use self::{
    chat::ChatRequest,
    encoder::Engine,
    hub::{Hub, HubError},
    memo::{Memo, MemoReport},
    source::{BadSource, HubRepo, TokenizerSource},
    stream::TextStream,
    template::{ChatTemplate, SpecialTokens},
};

use self::encoder::{Encoder, PROBES};
use self::pieces::Pieces;

/// A model's tokenizer and, if it has one, its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    template: Option<ChatTemplate>,
    pieces: Option<Pieces>,
    memo: Option<Arc<Memo>>,
}

/// Why text could not be turned into tokens, or a tokenizer not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// A tokenizer file is missing or unreadable.
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    /// A tokenizer file is not the JSON we expect.
    #[error("{file} is not valid: {source}")]
    Json { file: &'static str, source: serde_json::Error },
    /// Neither tokenizer library accepts this `tokenizer.json`.
    #[error("tokenizer.json cannot be loaded: {0}")]
    Load(String),
    /// The library failed on this input.
    #[error("cannot tokenize: {0}")]
    Encode(String),
    /// The library failed on these ids.
    #[error("cannot detokenize: {0}")]
    Decode(String),
    /// A chat was asked of a tokenizer without template.
    #[error("the tokenizer has no chat template")]
    NoTemplate,
    /// The template does not compile, or refused the messages.
    #[error("chat template: {0}")]
    Template(#[from] minijinja::Error),
    /// The messages are not a list of objects with text.
    #[error("messages: {0}")]
    Messages(&'static str),
    /// A content part is not text: its tokens depend on the pod's image processor.
    #[error("a message has a part of type {0:?}, which has no tokens of its own")]
    Multimodal(String),
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json` (optional) and `chat_template.jinja`
    /// (optional; it wins over the template in the config, as in transformers) from a model folder.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, TokenizeError> {
        let dir = dir.as_ref();
        let json = read(&dir.join("tokenizer.json"))?;
        let config = match read_optional(&dir.join("tokenizer_config.json"))? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| TokenizeError::Json { file: "tokenizer_config.json", source })?,
            None => Value::Null,
        };
        let template = read_optional(&dir.join("chat_template.jinja"))?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .or_else(|| template::default_template(&config));
        Self::from_parts(&json, template.as_deref(), SpecialTokens::from_config(&config))
    }

    /// Builds from the bytes of `tokenizer.json`, the template's source and the bytes of
    /// `tokenizer_config.json`, which names the special tokens that the template prints.
    pub fn from_bytes(
        tokenizer_json: &[u8],
        template: Option<&str>,
        tokenizer_config: &[u8],
    ) -> Result<Self, TokenizeError> {
        let config = serde_json::from_slice(tokenizer_config)
            .map_err(|source| TokenizeError::Json { file: "tokenizer_config.json", source })?;
        Self::from_parts(tokenizer_json, template, SpecialTokens::from_config(&config))
    }

    fn from_parts(
        tokenizer_json: &[u8],
        template: Option<&str>,
        specials: SpecialTokens,
    ) -> Result<Self, TokenizeError> {
        let template = template.map(|source| ChatTemplate::new(source, specials)).transpose()?;
        let json = serde_json::from_slice(tokenizer_json)
            .map_err(|source| TokenizeError::Json { file: "tokenizer.json", source })?;
        let encoder = Encoder::load(tokenizer_json)?;
        let pieces = Pieces::of(&json, &encoder, PROBES);
        Ok(Self { encoder, template, pieces, memo: None })
    }

    /// The same tokenizer, which looks up in `memo` what was tokenized before. The ids stay the
    /// same.
    #[must_use]
    pub fn with_memo(self, memo: Arc<Memo>) -> Self {
        Self { memo: Some(memo), ..self }
    }

    /// Whether a memo can help: some tokenizers allow no cut.
    pub fn remembers(&self) -> bool {
        self.memo.is_some() && self.pieces.is_some()
    }

    fn ids(&self, text: &str, specials: bool) -> Result<Vec<u32>, TokenizeError> {
        if let (Some(pieces), Some(memo)) = (&self.pieces, &self.memo)
            && !self.encoder.has_differed()
            && let Some(ids) = pieces.encode(&self.encoder, memo, text, specials)?
            && !self.encoder.has_differed()
        {
            return Ok(ids);
        }
        self.encoder.encode(text, specials)
    }

    /// Which library encodes, and if it is the slow one, why.
    pub fn engine(&self) -> Engine {
        self.encoder.engine()
    }

    /// Token ids of `text`, nothing added. Special tokens written in the text are parsed as
    /// specials, as vLLM does.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        self.ids(text, false)
    }

    /// Token ids of `text` with what the post-processor adds (often a BOS): what
    /// `/v1/completions` makes of a text prompt.
    pub fn encode_with_specials(&self, text: &str) -> Result<Vec<u32>, TokenizeError> {
        self.ids(text, true)
    }

    /// The text of `ids`, special tokens included. Incomplete UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizeError> {
        self.encoder.decode(ids, false)
    }

    /// The text of `ids` as a client sees it: special tokens are left out.
    pub fn decode_visible(&self, ids: &[u32]) -> Result<String, TokenizeError> {
        self.encoder.decode(ids, true)
    }

    /// The vocabulary's spelling of one id (byte-level: a space is `Ġ`), if the id exists.
    pub fn token(&self, id: u32) -> Option<String> {
        self.encoder.token(id)
    }

    /// The id of a vocabulary entry or special token, by its spelling.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.encoder.id(token)
    }

    /// How many ids exist, special tokens included: every id is below this unless the vocabulary
    /// has holes.
    pub fn vocabulary_size(&self) -> usize {
        self.encoder.vocabulary_size()
    }

    /// The prompt text that the chat template makes of a request.
    pub fn render_chat(&self, request: &ChatRequest<'_>) -> Result<String, TokenizeError> {
        self.template.as_ref().ok_or(TokenizeError::NoTemplate)?.render(request)
    }

    /// The prompt's token ids: [`render_chat`](Self::render_chat), then
    /// [`encode`](Self::encode) (the template prints its own BOS).
    pub fn chat_tokens(&self, request: &ChatRequest<'_>) -> Result<Vec<u32>, TokenizeError> {
        self.encode(&self.render_chat(request)?)
    }

    /// Whether [`chat_tokens`](Self::chat_tokens) can work at all.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizeError> {
    std::fs::read(path)
        .map_err(|source| TokenizeError::Read { path: path.display().to_string(), source })
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TokenizeError> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(TokenizeError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
