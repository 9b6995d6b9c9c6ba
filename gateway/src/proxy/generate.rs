//! A generation request: its body is held whole and read once, then it is relayed.

use std::pin::pin;

use http::header;
use pingora_proxy::Session;
use router::openai::Api;
use tokio::time::timeout;

use super::Gateway;
use super::relay::End;
use crate::drain::Phase;
use crate::refuse::Refuse;
use crate::request::account::Account;
use crate::request::body::{Body, Gathering};
use crate::request::read::read;

impl Gateway {
    /// Reads a generation request, and relays it.
    pub(super) async fn generate(
        &self,
        session: &mut Session,
        account: &mut Account,
        api: Api,
    ) -> Result<End, Refuse> {
        let body = self.read_body(session).await?;
        account.body_bytes = Some(body.bytes.len());
        let headers = &session.req_header().headers;
        let query = read((&self.router, &self.metrics), account, (api, headers), &body.bytes)?;
        self.relay(session, account, &query, &body.bytes).await
    }

    /// The whole body, within its cap and its deadline: what is too large is refused before the client is
    /// told to continue.
    pub(super) async fn read_body(&self, session: &mut Session) -> Result<Body, Refuse> {
        let limit = self.config.limits.body.len();
        let gathering = self.bodies.begin(&session.req_header().headers, limit)?;
        if expects_continue(session) {
            session.write_continue_response().await.map_err(|_gone| Refuse::BodyBroken)?;
        }
        let deadline = self.config.deadlines.request_body.get();
        let mut body = pin!(timeout(deadline, collect(session, gathering)));
        tokio::select! {
            biased;
            body = &mut body => body.map_err(|_elapsed| Refuse::BodyTooSlow)?,
            () = self.drain.reached(Phase::Cutting) => Err(Refuse::Draining),
        }
    }
}

async fn collect(session: &mut Session, mut gathering: Gathering) -> Result<Body, Refuse> {
    loop {
        let piece = session.downstream_session.read_request_body().await;
        let Some(piece) = piece.map_err(|_broken| Refuse::BodyBroken)? else { break };
        if gathering.is_whole_with(&piece) {
            return gathering.finish_with(piece);
        }
        gathering.push(&piece)?;
    }
    gathering.finish()
}

fn expects_continue(session: &Session) -> bool {
    session
        .req_header()
        .headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
