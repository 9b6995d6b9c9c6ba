//! What the named pods say of themselves before the job begins.

use super::super::JobError;
use crate::client::{Client, EngineConfig};

/// The pods, as far as they answer.
#[derive(Clone, Debug, Default)]
pub(super) struct System {
    /// `host:port` of every pod that is healthy; empty when none was named.
    pub pods: Vec<String>,
    /// The first pod's vLLM version.
    pub version: Option<String>,
    /// The first pod's cache configuration.
    pub config: Option<EngineConfig>,
}

// === impl System ===

impl System {
    /// Asks every named pod.
    ///
    /// # Errors
    /// Pods were named and none is healthy.
    pub(super) async fn ask(pods: &[Client]) -> Result<Self, JobError> {
        let mut system = Self::default();
        for pod in pods {
            match pod.get("/health").await {
                Ok(_empty) => system.pods.push(pod.authority().to_owned()),
                Err(error) => tracing::warn!(%error, "pod left out"),
            }
        }
        let Some(first) = pods.first() else { return Ok(system) };
        if system.pods.is_empty() {
            return Err(JobError::NoPods);
        }
        system.version = first.get("/version").await.ok().and_then(|body| {
            let body: serde_json::Value = serde_json::from_str(&body).ok()?;
            Some(body.get("version")?.as_str()?.to_owned())
        });
        system.config = EngineConfig::read(first).await.ok();
        Ok(system)
    }

    /// Tokens of a KV block, if the pods tell.
    pub(super) fn block_size(&self) -> Option<u64> {
        self.config.as_ref()?.block_size()
    }

    /// Whether the pods tell what the arithmetic assumes: prefix caching, 16-token blocks.
    pub(super) fn is_as_expected(&self) -> bool {
        let config = self.config.as_ref();
        config.is_some_and(|config| config.has_prefix_caching() && config.block_size() == Some(16))
    }

    /// The configuration's line.
    pub(super) fn describe(&self) -> String {
        let Some(config) = &self.config else {
            return "unknown (no pod was named, or it does not tell)".into();
        };
        let said = |label| config.labels.get(label).map_or("unknown", String::as_str);
        format!(
            "block_size: {}, enable_prefix_caching: {}, num_gpu_blocks: {}",
            said("block_size"),
            said("enable_prefix_caching"),
            said("num_gpu_blocks")
        )
    }
}
