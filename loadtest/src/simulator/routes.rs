//! vLLM's routes, one file per API.

pub(super) mod admin;
pub(super) mod chat;
pub(super) mod completions;
pub(super) mod embeddings;
pub(super) mod messages;
pub(super) mod meta;
pub(super) mod responses;
pub(super) mod tokens;
