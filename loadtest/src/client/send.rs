//! The client: sends one call and measures it.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, StatusCode};

use super::Call;
use super::answer::{Answer, Failure, innermost};
use super::receive::receive;

/// One gateway (or pod), reached by URL. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base_url: String,
    host: Option<HeaderValue>,
}

/// Why no client could be made, or a plain GET gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an `http` or `https` URL.
    #[error("`{url}` is not an http:// or https:// URL: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host header cannot be sent.
    #[error("`{0}` cannot be sent as a Host header")]
    Host(String),
    /// TLS or resolver set-up failed.
    #[error("the HTTP client cannot start: {0}")]
    Setup(#[source] reqwest::Error),
    /// A GET got no answer.
    #[error("GET {url} failed: {reason}")]
    Get {
        /// Where.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// A GET was answered, but not with 200.
    #[error("GET {url} answered {status}")]
    GetStatus {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
    },
}

// === impl Client ===

impl Client {
    /// A client for `base_url`, sending `host` as the Host header if given.
    ///
    /// # Errors
    /// A URL or host that cannot be used, or TLS that cannot start.
    pub fn new(base_url: &str, host: Option<&str>) -> Result<Self, ClientError> {
        let wrong = |reason: String| ClientError::Url { url: base_url.to_owned(), reason };
        let url = reqwest::Url::parse(base_url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("its scheme is `{}`", url.scheme())));
        }
        let host = host
            .map(|host| {
                HeaderValue::from_str(host).map_err(|_error| ClientError::Host(host.to_owned()))
            })
            .transpose()?;
        // An `Err` means another part of the process has installed a provider already.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("a TLS provider is installed already");
        }
        // A proxy from the environment would be measured instead of the gateway.
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(4096)
            .tcp_nodelay(true)
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self { http, base_url: base_url.trim_end_matches('/').to_owned(), host })
    }

    /// The URL this client sends to, without a final slash.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// `host:port` of the URL.
    pub fn authority(&self) -> &str {
        let rest = self.base_url.split_once("://").map_or("", |(_scheme, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The body of a GET that must answer 200.
    ///
    /// # Errors
    /// No answer within 5 s, or another status.
    pub async fn get(&self, path_and_query: &str) -> Result<String, ClientError> {
        let url = format!("{}{path_and_query}", self.base_url);
        let lost = |error: reqwest::Error| ClientError::Get {
            url: url.clone(),
            reason: innermost(&error),
        };
        let request = self.with_host(self.http.get(&url).timeout(Duration::from_secs(5)));
        let response = request.send().await.map_err(lost)?;
        if response.status() != StatusCode::OK {
            return Err(ClientError::GetStatus { url: url.clone(), status: response.status() });
        }
        response.text().await.map_err(lost)
    }

    /// Posts JSON and reads JSON: for the small questions that are not measured.
    ///
    /// # Errors
    /// As [`Client::get`]; an answer that is not JSON reads as no answer.
    pub async fn post_json(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<serde_json::Value, ClientError> {
        let url = format!("{}{path}", self.base_url);
        let lost = |error: reqwest::Error| ClientError::Get {
            url: url.clone(),
            reason: innermost(&error),
        };
        let request = self.http.post(&url).timeout(Duration::from_secs(10)).json(body);
        let response = self.with_host(request).send().await.map_err(lost)?;
        if response.status() != StatusCode::OK {
            return Err(ClientError::GetStatus { url: url.clone(), status: response.status() });
        }
        response.json().await.map_err(lost)
    }

    /// Sends one call. `deadline` bounds the whole exchange.
    pub async fn send(&self, call: &Call, deadline: Duration) -> Answer {
        let request = self
            .http
            .post(format!("{}{}", self.base_url, call.path))
            .timeout(deadline)
            .header(CONTENT_TYPE, "application/json")
            .headers(call.headers.clone())
            .body(call.body.clone());
        let mut answer = Answer::begin();
        let outcome = match self.with_host(request).send().await {
            Ok(response) => receive(response, call.stream, &mut answer).await,
            Err(error) => Err(Failure::from_reqwest(&error)),
        };
        answer.timing.total = answer.timing.sent_at.elapsed();
        answer.failure = outcome.err();
        answer
    }

    fn with_host(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.host {
            Some(host) => request.header(HOST, host),
            None => request,
        }
    }
}
