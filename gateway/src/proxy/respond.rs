//! Answers of our own, and the fields that every answer carries.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_core::Error;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use router::session::SESSION_HEADER;
use tokio::time::timeout;

use super::refuse::Refuse;
use super::relay::End;
use super::{Ctx, Gateway};
use crate::porch::LINGER;

impl Gateway {
    /// Answers an error; if part of an answer has gone out already, there is nothing to say.
    pub(super) async fn refuse(&self, session: &mut Session, ctx: &mut Ctx, refuse: &Refuse) {
        ctx.error = Some(refuse.reason());
        let begun = session.response_written().is_some_and(|r| !r.status.is_informational());
        if begun {
            session.set_keepalive(None);
            return;
        }
        if refuse.leaves_unread() || !session.downstream_session.is_body_done() {
            session.set_keepalive(None);
        }
        let (fields, body) = (refuse.headers(), refuse.body(ctx.shape));
        let status = refuse.status();
        let written = self.write(session, ctx, status, "application/json", &fields, body).await;
        match written {
            Ok(()) => linger(session).await,
            Err(error) => tracing::debug!(%error, "a client left before its error"),
        }
    }

    /// Answers a JSON text.
    pub(super) async fn json(&self, session: &mut Session, ctx: &Ctx, body: Bytes) -> End {
        self.plain(session, ctx, StatusCode::OK, body).await
    }

    /// Answers with a status and a body.
    pub(super) async fn plain(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        status: StatusCode,
        body: Bytes,
    ) -> End {
        match self.write(session, ctx, status, "application/json", &[], body).await {
            Ok(()) => End::Answered,
            Err(_gone) => End::ClientGone,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an answer has these parts")]
    async fn write(
        &self,
        session: &mut Session,
        ctx: &Ctx,
        status: StatusCode,
        content_type: &'static str,
        fields: &[(&'static str, &'static str)],
        body: Bytes,
    ) -> Result<(), Box<Error>> {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = status;
        if !body.is_empty() {
            head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if status != StatusCode::NO_CONTENT {
            head.headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        for (name, value) in fields {
            head.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        self.stamp(session, ctx, &mut head.headers);
        let head = ResponseHeader::from(head);
        let is_head = session.req_header().method == http::Method::HEAD;
        let is_empty = body.is_empty() || is_head;
        session.write_response_header(Box::new(head), is_empty).await?;
        if !is_empty {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(())
    }

    /// What every answer carries: the request's id, the pod, and why that pod.
    pub(super) fn stamp(&self, session: &Session, ctx: &Ctx, head: &mut HeaderMap) {
        set(head, REQUEST_ID, ctx.request_id.clone());
        if let Some(addr) = ctx.upstream {
            set(head, UPSTREAM_HOST, addr.to_string());
        }
        set(head, DECISION, ctx.decision_header().to_owned());
        self.allow_origin(session, head);
    }

    /// What a pod is told of a request beyond what the client said.
    pub(super) fn told_to_pod(&self, session: &Session, ctx: &Ctx) -> Vec<Field> {
        let mut fields = Vec::with_capacity(5);
        fields.push((REQUEST_ID, ctx.request_id.clone().into()));
        self.forwarded(session, &mut fields);
        if let Some(key) = &ctx.session {
            fields.push((SESSION_HEADER, key.value.to_string().into()));
        }
        fields
    }

    /// Where the request came from: what a proxy in front says, if it is believed, else what we see.
    fn forwarded(&self, session: &Session, fields: &mut Vec<Field>) {
        let headers = &session.req_header().headers;
        let trusted = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.filter(|_| self.config.forwarded.trust_addresses).map(str::to_owned)
        };
        let inet = |addr: &SocketAddr| addr.as_inet().map(|addr| addr.ip().to_string());
        let hops = [trusted("x-forwarded-for"), session.client_addr().and_then(inet)];
        let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let proto = trusted("x-forwarded-proto")
            .map_or_else(|| Bytes::from(if is_tls { "https" } else { "http" }), Bytes::from);
        let host = trusted("x-forwarded-host").or_else(|| {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let authority = session.req_header().uri.authority().map(|it| it.as_str());
            host.or(authority).map(str::to_owned)
        });
        let hops = hops.into_iter().flatten().collect::<Vec<_>>().join(", ");
        fields.push((HeaderName::from_static("x-forwarded-for"), hops.into()));
        fields.push((HeaderName::from_static("x-forwarded-proto"), proto));
        fields.push((HeaderName::from_static("x-forwarded-host"), host.unwrap_or_default().into()));
    }

    /// CORS, where it is switched on.
    fn allow_origin(&self, session: &Session, head: &mut HeaderMap) {
        let cors = &self.config.cors;
        let Some(origin) = session.req_header().headers.get(header::ORIGIN) else { return };
        let Ok(origin) = origin.to_str() else { return };
        let any = cors.allow_origins.iter().any(|allowed| allowed == "*");
        if cors.enabled && (any || cors.allow_origins.iter().any(|allowed| allowed == origin)) {
            let allowed = if any { "*" } else { origin }.to_owned();
            set(head, header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            set(head, header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            set(head, header::VARY, "origin");
        }
    }

    /// Answers a browser that asks what it may do.
    pub(super) async fn preflight(&self, session: &mut Session, ctx: &Ctx) -> Result<End, Refuse> {
        let fields = [
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-allow-headers", "*, authorization"),
            ("access-control-max-age", "86400"),
        ];
        let status = StatusCode::NO_CONTENT;
        match self.write(session, ctx, status, "", &fields, Bytes::new()).await {
            Ok(()) => Ok(End::Answered),
            Err(_gone) => Ok(End::ClientGone),
        }
    }
}

/// Sets a field whose value should be fit for one.
fn set(head: &mut HeaderMap, name: HeaderName, value: impl Into<Bytes>) {
    match HeaderValue::from_maybe_shared(value.into()) {
        Ok(value) => {
            head.insert(name, value);
        }
        Err(_invalid) => tracing::debug!(%name, "a value is not fit for a header"),
    }
}

/// A field of a head: its name and its value, which may be a client's and unfit.
pub(super) type Field = (HeaderName, Bytes);

/// Reads on for a while what is left of a refused request. A client that sends its whole body before
/// it looks for an answer would find a reset instead: a socket that is closed with unread bytes
/// resets, and so does an HTTP/2 stream, which curl takes for a failure.
async fn linger(session: &mut Session) {
    let rest =
        async { while let Ok(Some(_)) = session.downstream_session.read_request_body().await {} };
    if timeout(LINGER, rest).await.is_err() {
        tracing::debug!("a refused client went on sending");
    }
}

/// The request's id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Which pod answered.
const UPSTREAM_HOST: HeaderName = HeaderName::from_static("x-upstream-host");

/// Why that pod.
const DECISION: HeaderName = HeaderName::from_static("x-hearth-decision");

/// Fields that a page's script may read.
const EXPOSED: &str = "x-request-id, x-upstream-host, x-hearth-decision";
