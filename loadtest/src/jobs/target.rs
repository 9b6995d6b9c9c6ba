//! Where a job sends its traffic: the options that all jobs share, with the names of the pipelines
//! we replace (`GATEWAY_URL`, `HOST_HEADER`, `NS`/`NAMESPACE`, `MODEL_ID`).

use std::time::Duration;

use super::JobError;
use crate::client::Client;

/// The gateway, and the model asked of it.
#[derive(Clone, Debug, clap::Args)]
pub struct TargetOptions {
    /// Base URL of the gateway. Without it: the gateway Service of the namespace if one is named,
    /// else <http://127.0.0.1:8080>.
    #[arg(long, env = "GATEWAY_URL", value_name = "URL")]
    pub gateway_url: Option<String>,

    /// Kubernetes namespace of the gateway Service `llm-d-gateway-istio`.
    #[arg(long, env = "NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// Short for --namespace, as older scripts spell it.
    #[arg(long, env = "NS", value_name = "NAME", hide = true)]
    pub ns: Option<String>,

    /// Host header to send instead of the URL's own.
    #[arg(long, env = "HOST_HEADER", value_name = "HOST")]
    pub host_header: Option<String>,

    /// Model to ask for.
    #[arg(long, env = "MODEL_ID", value_name = "NAME", default_value_t = Self::default().model_id)]
    pub model_id: String,

    /// Longest that one request may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = Self::default().timeout_s)]
    pub timeout_s: u64,
}

// === impl TargetOptions ===

impl Default for TargetOptions {
    fn default() -> Self {
        Self {
            gateway_url: None,
            namespace: None,
            ns: None,
            host_header: None,
            model_id: "meta-llama/Llama-3.2-3B-Instruct".into(),
            timeout_s: 120,
        }
    }
}

impl TargetOptions {
    /// The URL to send to. Empty values count as not given: a pipeline passes `""` for "none".
    pub fn url(&self) -> String {
        if let Some(url) = given(self.gateway_url.as_ref()) {
            return url.to_owned();
        }
        match given(self.namespace.as_ref()).or(given(self.ns.as_ref())) {
            Some(namespace) => format!("http://llm-d-gateway-istio.{namespace}.svc.cluster.local"),
            None => "http://127.0.0.1:8080".into(),
        }
    }

    /// A client for [`TargetOptions::url`].
    ///
    /// # Errors
    /// A URL or host header that cannot be used.
    pub fn client(&self) -> Result<Client, JobError> {
        self.client_for(&self.url())
    }

    /// A client for another URL, with the same host header.
    ///
    /// # Errors
    /// A URL or host header that cannot be used.
    pub fn client_for(&self, url: &str) -> Result<Client, JobError> {
        Ok(Client::new(url, given(self.host_header.as_ref()))?)
    }

    /// The longest that one request may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

/// An option's value, unless it is missing or empty.
pub(crate) fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_url_beats_the_namespace_and_empty_values_count_as_none() {
        let mut target = TargetOptions { namespace: Some("ai".into()), ..Default::default() };
        assert_eq!(target.url(), "http://llm-d-gateway-istio.ai.svc.cluster.local");
        target.gateway_url = Some("http://10.0.0.1".into());
        assert_eq!(target.url(), "http://10.0.0.1");
        target.gateway_url = Some(String::new());
        target.namespace = Some(String::new());
        assert_eq!(target.url(), "http://127.0.0.1:8080");
    }
}
