//! `/v1/models`, `/v1/models/{id}` and `/health`: what is ours to answer.

use bytes::Bytes;
use pingora_proxy::Session;

use super::Gateway;
use super::relay::End;
use crate::refuse::Refuse;
use crate::request::account::Account;
use crate::request::models::{can_answer, list, one, without_name};

impl Gateway {
    /// The union over live pods, each model once.
    pub(super) async fn models(
        &self,
        session: &mut Session,
        account: &Account,
    ) -> Result<End, Refuse> {
        Ok(self.json(session, account, list(&self.router)).await)
    }

    /// One model's card.
    pub(super) async fn model(
        &self,
        session: &mut Session,
        account: &Account,
        id: String,
    ) -> Result<End, Refuse> {
        Ok(self.json(session, account, one(&self.router, &id)?).await)
    }

    /// Takes the name of a model out of a path that means nothing itself.
    pub(super) fn take_name(&self, session: &mut Session, account: &mut Account) {
        let head = session.req_header_mut();
        if let Some(uri) = without_name(self.router.names(), (&head.method, &head.uri), account) {
            head.set_uri(uri);
        }
    }

    /// 200 while any pod can serve.
    pub(super) async fn health(
        &self,
        session: &mut Session,
        account: &Account,
    ) -> Result<End, Refuse> {
        can_answer(&self.router)?;
        Ok(self.json(session, account, Bytes::new()).await)
    }
}
