//! Paths of which nothing but the model that they name is read, so that a pod that does not serve it
//! never gets them: relayed as all others, but for WebSockets, which Pingora carries.

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
        // A path that names a model says it, whatever the form says.
        let model = account.asked.as_deref().or(model.as_deref());
        let query = self.router.unread(headers, model)?;
        account.knows(&query);
        self.relay(session, account, &query, &body.bytes).await
    }

    /// Prepares a WebSocket, which Pingora carries: its model is in the query (`?model=`).
    pub(super) fn open_websocket(&self, session: &Session, ctx: &mut Ctx) -> Result<(), Refuse> {
        let head = session.req_header();
        let named = model_of_query(&head.uri);
        let model = ctx.account.asked.as_deref().or(named.as_deref());
        let query = self.router.unread(&head.headers, model)?;
        ctx.account.knows(&query);
        ctx.websocket.query = query;
        self.retries.deposit();
        Ok(())
    }
}

/// Whether Pingora has to carry the request itself.
pub(super) fn is_websocket(session: &Session) -> bool {
    let head = session.req_header();
    session.is_upgrade_req() && headers::is_websocket(&head.method, &head.headers)
}
