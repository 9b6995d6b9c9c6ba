//! Paths that a pod gets as they are: read only for the model that they name, so that a pod that
//! does not serve it never gets them.

use pingora_proxy::Session;
use tower::retry::budget::Budget;

use super::relay::End;
use super::{Ctx, Gateway};
use crate::refuse::Refuse;
use crate::request::account::Account;
use crate::request::headers;
use crate::request::named::{model_of_form, model_of_query};

impl Gateway {
    /// Passes a request on, under the caps and deadlines of all others.
    pub(super) async fn pass(
        &self,
        session: &mut Session,
        account: &mut Account,
    ) -> Result<End, Refuse> {
        let body = self.read_body(session).await?;
        let headers = &session.req_header().headers;
        let model = model_of_form(headers, &body.bytes).await;
        let query = self.router.unread(headers, model.as_deref())?;
        account.knows(&query);
        self.relay(session, account, &query, &body.bytes).await
    }

    /// Prepares a WebSocket, which Pingora carries: its model is in the query (`?model=`).
    pub(super) fn open_websocket(&self, session: &Session, ctx: &mut Ctx) -> Result<(), Refuse> {
        let head = session.req_header();
        let query = self.router.unread(&head.headers, model_of_query(&head.uri).as_deref())?;
        ctx.account.knows(&query);
        ctx.websocket.query = query;
        self.retries.deposit();
        Ok(())
    }
}

/// Whether Pingora has to carry the request itself.
pub(super) fn is_websocket(session: &Session) -> bool {
    session.is_upgrade_req() && headers::is_websocket(&session.req_header().headers)
}
