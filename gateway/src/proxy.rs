//! A request's life in Pingora's phases. Each phase is short and delegates.

mod answer;
mod commit;
mod connection;
mod cors;
mod ctx;
mod forwarded;
mod generate;
mod lease;
mod legs;
mod models;
mod native;
mod passage;
mod patience;
mod relay;
mod rescue;
mod respond;
mod survive;
mod upstream;
mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::HeaderMap;
use pingora_core::connectors::{ConnectorOptions, TransportConnector};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use router::Router;
use router::pool::Outcome;
use tower::retry::budget::TpsBudget;

use crate::config::Config;
use crate::drain::Drain;
use crate::refuse::{CLIENT_GONE, CLIENT_SLOW, Refuse, Shape};
use crate::request::Parts;
use crate::request::account::Account;
use crate::request::body::BodyBudget;
use crate::request::books::Books;
use crate::request::failure::{Failure, report};
use crate::request::headers;
use crate::request::route::{self, Route};
use crate::request::seat::Seats;
use crate::telemetry::metrics::Metrics;
use ctx::Ctx;
use legs::Engines;
use relay::End;

/// Everything that requests share.
pub(crate) struct Gateway {
    config: Arc<Config>,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    books: Arc<Books>,
    drain: Drain,
    connector: TransportConnector,
    bodies: BodyBudget,
    retries: TpsBudget,
    /// Requests that may be sent to a second pod while the first still has them.
    rescues: TpsBudget,
    /// Engines of prefill pods, where they have to be asked for.
    engines: Engines,
    seats: Seats,
    /// Numbers the transfers between pods, from a random one on: another gateway's are others.
    rooms: AtomicU64,
}

/// Idle connections to pods that are kept, over all pods.
const IDLE_UPSTREAMS: usize = 1024;

/// Over how long the shares of retries and rescues are counted.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

// === impl Gateway ===

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, router, books, drain, bodies } = parts;
        let metrics = Arc::clone(&books.metrics);
        let connector = TransportConnector::new(Some(ConnectorOptions::new(IDLE_UPSTREAMS)));
        let retries = budget(config.retry.budget, config.retry.floor_per_s);
        let rescues = budget(config.survive.rescue.budget, 0);
        let places = (Arc::clone(&router), Arc::clone(&metrics));
        let seats = Seats::new(places, drain.clone(), config.queue);
        let (engines, rooms) = (Engines::default(), AtomicU64::new(rand::random()));
        Self {
            config,
            router,
            metrics,
            books,
            drain,
            connector,
            bodies,
            retries,
            rescues,
            engines,
            seats,
            rooms,
        }
    }

    /// Serves what is ours to carry; none for a WebSocket, which Pingora carries.
    async fn serve(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Option<End>, Refuse> {
        self.take_name(session, &mut ctx.account);
        let head = session.req_header();
        ctx.account.shape = Shape::of_path(head.uri.path());
        headers::check(head, self.config.limits.head.len())?;
        let route = route::route(&head.method, head.uri.path(), self.config.cors.enabled)?;
        ctx.account.route = route.label();
        if self.drain.is_closing() {
            return Err(Refuse::Draining);
        }
        let end = match route {
            Route::Generate(api) => self.generate(session, &mut ctx.account, api).await?,
            Route::Models => self.models(session, &ctx.account).await?,
            Route::Model(id) => self.model(session, &ctx.account, id).await?,
            Route::Health => self.health(session, &ctx.account).await?,
            Route::Preflight => self.preflight(session, &ctx.account).await?,
            Route::Unread(_) if native::is_websocket(session) => {
                self.open_websocket(session, ctx)?;
                return Ok(None);
            }
            Route::Unread(_) => self.pass(session, &mut ctx.account).await?,
        };
        Ok(Some(end))
    }

    /// Tells the pool what Pingora saw of a WebSocket's pod.
    fn tell_pool(&self, ctx: &Ctx, outcome: Outcome) {
        if let Some(placement) = &ctx.websocket.place {
            self.router.pool().report(placement.endpoint.slot, outcome);
        }
    }

    /// Ends a request whose client is gone, or must not take what it got for a whole answer: an
    /// error makes Pingora drop the connection (HTTP/2: reset the stream) where after success it
    /// would flush what is left, and wait for that without end.
    fn abandon(account: &mut Account, end: &End) -> Result<bool> {
        let is_slow = matches!(end, End::ClientSlow);
        account.error.get_or_insert(if is_slow { CLIENT_SLOW } else { CLIENT_GONE });
        Err(Error::new_down(ErrorType::ConnectionClosed))
    }
}

/// A share of the requests of [`RETRY_WINDOW`], and so many per second besides.
fn budget(share: f64, floor_per_s: u32) -> TpsBudget {
    #[expect(clippy::cast_possible_truncation, reason = "a share needs no 53 bits")]
    let share = share as f32;
    TpsBudget::new(RETRY_WINDOW, floor_per_s, share)
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(Arc::clone(&self.books))
    }

    /// No compression: pods' bytes travel as they are.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let client = session.client_addr().and_then(|addr| addr.as_inet().copied());
        let (sent, about) =
            ((&**session.req_header(), client), (&self.drain, self.config.forwarded));
        ctx.presence = Some(self.books.begin(&mut ctx.account, sent, about));
        session.set_write_timeout(Some(self.config.deadlines.client_write.get()));
        let keep_alive = self.config.deadlines.keep_alive.as_secs();
        let may_stay = !self.drain.is_draining() && headers::may_stay(session.req_header());
        session.set_keepalive(may_stay.then_some(keep_alive));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        match self.serve(session, ctx).await {
            Ok(None) => Ok(false),
            Ok(Some(End::Answered)) => Ok(true),
            Ok(Some(end)) => Self::abandon(&mut ctx.account, &end),
            Err(refuse) => {
                self.refuse(session, &mut ctx.account, &refuse).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        let Ctx { account, websocket, .. } = ctx;
        let placement = self.router.place(&websocket.query, &websocket.tried);
        let placement = placement.map_err(|refusal| {
            let error = Error::explain(ErrorType::InternalError, refusal.to_string());
            websocket.refusal = Some(refusal);
            error
        })?;
        let deadlines = &self.config.deadlines;
        let mut peer = connection::peer(&placement.endpoint.pod, deadlines);
        peer.options.read_timeout = Some(deadlines.websocket_idle.get());
        peer.options.write_timeout = Some(deadlines.upstream_write.get());
        account.attempts += 1;
        account.goes_to(&placement, &websocket.query);
        websocket.tried.push(placement.endpoint.slot);
        websocket.place = Some(placement);
        Ok(Box::new(peer))
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let refused = *error.etype() == ErrorType::ConnectRefused;
        self.tell_pool(ctx, if refused { Outcome::Refused } else { Outcome::Failed });
        if let Some(pod) = ctx.account.attempt.pod {
            ctx.account.attempt_failed(pod, "connect_failed");
        }
        let again = ctx.account.attempts < self.config.retry.attempts && self.may_retry();
        if again {
            self.metrics.retry("connect_failed");
        }
        error.set_retry(again);
        error
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        let asked = session.req_header();
        headers::clean_request(head, headers::is_websocket(&asked.method, &asked.headers));
        for (name, text) in self.told_to_pod(session, &ctx.account) {
            if let Some(value) = upstream::value(&name, text) {
                head.insert_header(name, value)?;
            }
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        ctx.account.attempt.head = Some(Instant::now());
        if let Some(place) = &ctx.websocket.place {
            report(self.router.pool(), place.endpoint.slot, Failure::of_status(head.status));
        }
        let theirs = head.headers.keys().filter(|name| headers::is_ours(name)).cloned();
        for name in theirs.collect::<Vec<_>>() {
            head.remove_header(&name);
        }
        let mut ours = HeaderMap::new();
        self.stamp(session, &ctx.account, &mut ours);
        for (name, value) in &ours {
            // Ours stand beside a pod's own where a field is a list.
            if name == http::header::VARY {
                head.append_header(name, value)?;
                continue;
            }
            head.insert_header(name, value)?;
        }
        Ok(())
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Ctx,
    ) -> FailToProxy {
        let refuse = match (ctx.websocket.refusal.take(), error.esource(), error.etype()) {
            (Some(refusal), ..) => Some(Refuse::Router(refusal)),
            (_, ErrorSource::Downstream, _) => None,
            (_, ErrorSource::Internal, _) => Some(Refuse::Internal),
            _ if respond::has_begun(session) => Some(Refuse::PodFailed),
            (_, _, ErrorType::ReadTimedout) => Some(Refuse::FirstByteTooLate),
            _ => Some(Refuse::AttemptsFailed { cause: "a pod did not answer" }),
        };
        let Some(refuse) = refuse else {
            let is_slow = *error.etype() == ErrorType::WriteTimedout;
            ctx.account.error.get_or_insert(if is_slow { CLIENT_SLOW } else { CLIENT_GONE });
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        };
        self.refuse(session, &mut ctx.account, &refuse).await;
        FailToProxy { error_code: refuse.status().as_u16(), can_reuse_downstream: false }
    }

    /// The access log tells of failures, with their labels. Pingora's lines would add the query.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Ctx) {
        ctx.websocket.place = None;
        let status = session.response_written().map(|head| head.status);
        ctx.account.close(status, session.body_bytes_sent());
    }
}
