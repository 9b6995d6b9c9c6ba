//! Browsers on pages of other origins: what they are told, where that is switched on.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pingora_proxy::Session;

use super::Gateway;
use super::relay::End;
use super::respond::set;
use crate::refuse::Refuse;
use crate::request::account::Account;

/// Fields that a page's script may read.
const EXPOSED: &str = "x-request-id, x-upstream-host, x-hearth-decision";

impl Gateway {
    /// Lets the page's script read the answer.
    pub(super) fn allow_origin(&self, session: &Session, head: &mut HeaderMap) {
        let cors = &self.config.cors;
        if !cors.enabled {
            return;
        }
        let any = cors.allow_origins.iter().any(|allowed| allowed == "*");
        if !any {
            // Whoever the page is: a cache must not keep one origin's answer for another.
            head.append(header::VARY, HeaderValue::from_static("origin"));
        }
        let Some(origin) = session.req_header().headers.get(header::ORIGIN) else { return };
        let Ok(origin) = origin.to_str() else { return };
        if any || cors.allow_origins.iter().any(|allowed| allowed == origin) {
            let allowed = if any { "*" } else { origin }.to_owned();
            set(head, header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            set(head, header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }

    /// Answers a browser that asks what it may do.
    pub(super) async fn preflight(
        &self,
        session: &mut Session,
        account: &Account,
    ) -> Result<End, Refuse> {
        let fields = [
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-allow-headers", "*, authorization"),
            ("access-control-max-age", "86400"),
        ];
        let status = StatusCode::NO_CONTENT;
        match self.write(session, account, status, "", &fields, Bytes::new()).await {
            Ok(()) => Ok(End::Answered),
            Err(error) => Ok(End::of_write(&error)),
        }
    }
}
