//! Answers of our own, and the fields that every answer carries.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_core::Error;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::timeout;

use super::Gateway;
use super::relay::End;
use crate::refuse::{LINGER, Refuse};
use crate::request::account::Account;

impl Gateway {
    /// Answers an error; if part of an answer has gone out already, there is nothing to say.
    pub(super) async fn refuse(
        &self,
        session: &mut Session,
        account: &mut Account,
        refuse: &Refuse,
    ) {
        account.error = Some(refuse.reason());
        if has_begun(session) {
            session.set_keepalive(None);
            return;
        }
        if refuse.leaves_unread() || !session.downstream_session.is_body_done() {
            session.set_keepalive(None);
        }
        let (fields, body) = (refuse.headers(), refuse.body(account.shape));
        let status = refuse.status();
        let written = self.write(session, account, status, "application/json", &fields, body).await;
        match written {
            Ok(()) => linger(session).await,
            Err(error) => tracing::debug!(%error, "a client left before its error"),
        }
    }

    /// Answers a JSON text.
    pub(super) async fn json(&self, session: &mut Session, account: &Account, body: Bytes) -> End {
        self.plain(session, account, StatusCode::OK, body).await
    }

    /// Answers with a status and a body.
    pub(super) async fn plain(
        &self,
        session: &mut Session,
        account: &Account,
        status: StatusCode,
        body: Bytes,
    ) -> End {
        match self.write(session, account, status, "application/json", &[], body).await {
            Ok(()) => End::Answered,
            Err(error) => End::of_write(&error),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an answer has these parts")]
    pub(super) async fn write(
        &self,
        session: &mut Session,
        account: &Account,
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
        self.stamp(session, account, &mut head.headers);
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
    pub(super) fn stamp(&self, session: &Session, account: &Account, head: &mut HeaderMap) {
        for (name, value) in account.stamps() {
            set(head, name, value);
        }
        self.allow_origin(session, head);
    }
}

/// Whether part of an answer has gone out: a head, or the switch to another protocol, whose bytes are
/// nobody's but the pod's.
pub(super) fn has_begun(session: &Session) -> bool {
    session.response_written().is_some_and(|head| {
        !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
    })
}

/// Sets a field whose value should be fit for one.
pub(super) fn set(head: &mut HeaderMap, name: HeaderName, value: impl Into<Bytes>) {
    match HeaderValue::from_maybe_shared(value.into()) {
        Ok(value) => {
            head.insert(name, value);
        }
        Err(_invalid) => tracing::debug!(%name, "a value is not fit for a header"),
    }
}

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
