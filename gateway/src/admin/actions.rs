//! What people may change while the gateway runs: which pods get requests, and what is logged.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use router::pool::CordonError;
use tokio::time::Instant;

use super::{Pages, PoolPage};
use crate::telemetry::log_level::LogLevelError;

/// Why nothing was changed, as the text of an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    #[error(transparent)]
    Cordon(#[from] CordonError),
    #[error(transparent)]
    LogLevel(#[from] LogLevelError),
}

// === impl ActionError ===

impl IntoResponse for ActionError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Cordon(CordonError::NoSuchPod) => StatusCode::NOT_FOUND,
            Self::LogLevel(LogLevelError::Directives(_)) => StatusCode::BAD_REQUEST,
            Self::Cordon(CordonError::Ended) | Self::LogLevel(LogLevelError::NotOurs) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// Nothing is changed by a web page: browsers say where a request that changes something comes from,
/// and one that is open on an operator's machine reaches the operator's loopback.
pub(super) async fn not_by_a_page(request: Request, next: Next) -> Response {
    let changes = ![Method::GET, Method::HEAD].contains(request.method());
    if changes && request.headers().contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "not for browsers\n").into_response();
    }
    next.run(request).await
}

/// New requests go elsewhere; what runs there runs on.
pub(super) async fn cordon(
    State(pages): State<Pages>,
    Path(pod): Path<String>,
) -> Result<Json<PoolPage>, ActionError> {
    set_cordon(&pages, &pod, true).await
}

pub(super) async fn uncordon(
    State(pages): State<Pages>,
    Path(pod): Path<String>,
) -> Result<Json<PoolPage>, ActionError> {
    set_cordon(&pages, &pod, false).await
}

/// Answers with the pool as it is then.
async fn set_cordon(
    pages: &Pages,
    pod: &str,
    is_cordoned: bool,
) -> Result<Json<PoolPage>, ActionError> {
    pages.pool.cordon(pod, is_cordoned).await?;
    Ok(Json(PoolPage::of(&pages.readings.take(), Instant::now())))
}

pub(super) async fn log_level(State(pages): State<Pages>) -> Result<String, ActionError> {
    let level = pages.log_level.get().ok_or(LogLevelError::NotOurs)?;
    Ok(format!("{level}\n"))
}

pub(super) async fn set_log_level(
    State(pages): State<Pages>,
    directives: String,
) -> Result<String, ActionError> {
    pages.log_level.set(directives.trim())?;
    tracing::info!(level = directives.trim(), "log level");
    log_level(State(pages)).await
}
