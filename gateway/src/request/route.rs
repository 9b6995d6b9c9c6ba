//! Which door a request takes: a table of paths, closed.
//!
//! The path is percent-decoded once, as the pod will do it (`/v1/%63hat/completions` and
//! `/v1%2fchat%2fcompletions` reach vLLM's chat handler), and the original is sent on. What is not
//! in the table is a 404: vLLM has administrative paths below `/v1` and beside it (LoRA loading,
//! sleep, cache reset, profiling, metrics), and none of them is for clients.

use http::Method;
use percent_encoding::percent_decode_str;
use router::openai::Api;

use crate::refuse::Refuse;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Read, routed by its prompt, relayed by us.
    Generate(Api),
    /// The union of the pods' models.
    Models,
    /// One of them.
    Model(String),
    /// Whether any pod can serve.
    Health,
    /// As it is, to any ready pod that serves the model that it names, if it names one.
    Unread(&'static str),
    /// A browser asks what it may do.
    Preflight,
}

/// Finds the route.
///
/// # Errors
/// An unknown path, or a known one with the wrong method.
pub(crate) fn route(method: &Method, path: &str, cors: bool) -> Result<Route, Refuse> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    if cors && method == Method::OPTIONS {
        return Ok(Route::Preflight);
    }
    if let Some(api) = api(&decoded) {
        return allow(method, "POST", &[Method::POST], Route::Generate(api));
    }
    match &*decoded {
        "/v1/models" => return allow(method, "GET", &[Method::GET], Route::Models),
        "/health" | "/ping" => {
            let allowed = [Method::GET, Method::HEAD, Method::POST];
            return allow(method, "GET, HEAD, POST", &allowed, Route::Health);
        }
        _ => {}
    }
    if let Some(id) = decoded.strip_prefix("/v1/models/").filter(|id| !id.is_empty()) {
        return allow(method, "GET", &[Method::GET], Route::Model(id.to_owned()));
    }
    if let Some((label, allowed, methods)) = unread(&decoded) {
        return allow(method, allowed, methods, Route::Unread(label));
    }
    Err(Refuse::NoSuchPath { path: shortened(&decoded) })
}

/// Whether this path is none of ours, whatever the method.
pub(crate) fn is_unknown(method: &Method, path: &str) -> bool {
    matches!(route(method, path, false), Err(Refuse::NoSuchPath { .. }))
}

/// The generation APIs, vLLM's aliases included. `/invocations` is none: which API its body is meant
/// for, the pod guesses.
fn api(path: &str) -> Option<Api> {
    match path {
        "/v2/embed" => Some(Api::Embeddings),
        "/v1/completions/render"
        | "/v1/responses/render"
        | "/v1/messages/render"
        | "/v1/chat/completions/derender"
        | "/v1/completions/derender" => Some(Api::Render),
        "/rerank" | "/v2/rerank" => Some(Api::Rerank),
        "/score" => Some(Api::Score),
        _ => Api::ALL.into_iter().find(|api| api.path() == path),
    }
}

/// What else vLLM offers to users: label, allowed methods.
fn unread(path: &str) -> Option<(&'static str, &'static str, &'static [Method])> {
    const GET: (&str, &[Method]) = ("GET", &[Method::GET]);
    const POST: (&str, &[Method]) = ("POST", &[Method::POST]);
    let (label, (allowed, methods)) = match path {
        "/version" => ("version", GET),
        "/v1/audio/transcriptions" => ("transcriptions", POST),
        "/v1/audio/translations" => ("translations", POST),
        "/v1/realtime" => ("realtime", GET),
        _ => {
            let id = path.strip_prefix("/v1/responses/")?;
            match id.strip_suffix("/cancel") {
                Some(id) if is_segment(id) => ("response_cancel", POST),
                None if is_segment(id) => ("response", GET),
                _ => return None,
            }
        }
    };
    Some((label, allowed, methods))
}

fn is_segment(id: &str) -> bool {
    !id.is_empty() && id != "." && id != ".." && !id.contains('/')
}

fn allow(
    method: &Method,
    allowed: &'static str,
    methods: &[Method],
    route: Route,
) -> Result<Route, Refuse> {
    if methods.contains(method) { Ok(route) } else { Err(Refuse::MethodNotAllowed { allowed }) }
}

/// A client's path in our message: the first 100 characters.
fn shortened(path: &str) -> String {
    path.chars().take(100).collect()
}

// === impl Route ===

impl Route {
    /// The label in metrics, and `route_name` in the access log.
    #[must_use]
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Generate(api) => api.label(),
            Self::Models => "models",
            Self::Model(_) => "model",
            Self::Health => "health",
            Self::Unread(label) => label,
            Self::Preflight => "preflight",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(method: Method, path: &str) -> Result<Route, u16> {
        route(&method, path, false).map_err(|refuse| refuse.status().as_u16())
    }

    #[test]
    fn every_spelling_that_the_pod_would_route_is_routed_alike() {
        for path in [
            "/v1/chat/completions",
            "/v1/%63hat/completions",
            "/v1%2fchat%2Fcompletions",
            "/%76%31/chat/completions",
        ] {
            assert_eq!(to(Method::POST, path), Ok(Route::Generate(Api::Chat)), "{path}");
        }
        for api in Api::ALL {
            assert_eq!(to(Method::POST, api.path()), Ok(Route::Generate(api)));
            assert_eq!(to(Method::GET, api.path()), Err(405));
        }
        for (alias, api) in [
            ("/v2/rerank", Api::Rerank),
            ("/v2/embed", Api::Embeddings),
            ("/v1/messages/render", Api::Render),
            ("/v1/completions/derender", Api::Render),
        ] {
            assert_eq!(to(Method::POST, alias), Ok(Route::Generate(api)), "{alias}");
        }
    }

    #[test]
    fn nothing_administrative_is_reachable_however_it_is_spelled() {
        for path in [
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
            "/v1/%6coad_lora_adapter",
            "/v1/../sleep",
            "/v1/models/../../sleep",
            "/v1/responses/../load_lora_adapter",
            "/v1/responses/..",
            "/v1/responses/..%2fload_lora_adapter",
            "/sleep",
            "/wake_up",
            "/reset_prefix_cache",
            "/collective_rpc",
            "/pause",
            "/scale_elastic_ep",
            "/metrics",
            "/load",
            "/server_info",
            "/start_profile",
            "/inference/v1/abort_requests",
            "/invocations",
            "/v1/chat/completions/",
            "//v1/chat/completions",
            "/v1/%2563hat/completions",
            "/",
            "*",
            "",
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                let found = to(method, path);
                let harmless = matches!(found, Err(404 | 405) | Ok(Route::Model(_)));
                assert!(harmless, "{path}: {found:?}");
            }
        }
    }

    #[test]
    fn what_users_need_is_there() {
        assert_eq!(to(Method::GET, "/v1/models"), Ok(Route::Models));
        let slashed = Route::Model("meta-llama/Llama-3".into());
        assert_eq!(to(Method::GET, "/v1/models/meta-llama%2FLlama-3"), Ok(slashed));
        assert_eq!(to(Method::GET, "/ping"), Ok(Route::Health));
        assert_eq!(to(Method::GET, "/v1/responses/resp_1"), Ok(Route::Unread("response")));
        let cancel = Ok(Route::Unread("response_cancel"));
        assert_eq!(to(Method::POST, "/v1/responses/resp_1/cancel"), cancel);
        assert_eq!(route(&Method::OPTIONS, "/v1/models", true).ok(), Some(Route::Preflight));
        assert_eq!(to(Method::OPTIONS, "/v1/models"), Err(405));
    }
}
