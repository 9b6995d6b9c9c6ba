//! The request's half of a call: read when it is whole, given a place, and sent there.

use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;
use router::query::Query;
use router::{Placement, Refusal};

use super::super::exchange::Forward;
use super::super::wire::{self, DESTINATION, Field};
use super::{Call, field};
use crate::head::Fault;
use crate::refuse::{Refuse, Shape};
use crate::request::body::Body;
use crate::request::headers::{self, last_hop};
use crate::request::read::{for_any_pod, read};
use crate::request::route::{self, Route};
use crate::request::{models, named};

// === impl Call ===

impl Call {
    /// The head: what can be said to it at once is.
    pub(super) async fn begin(
        &mut self,
        head: Parts,
        fault: Option<Fault>,
        whole: bool,
    ) -> Result<(), Refuse> {
        let head = self.head.insert(head);
        let desk = &self.desk;
        let (sent, about) = ((&*head, self.client), (&desk.drain, desk.config.forwarded));
        self.presence = Some(desk.books.begin(&mut self.account, sent, about));
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        let names = desk.router.names();
        if let Some(uri) = models::without_name(names, (&head.method, &head.uri), &mut self.account)
        {
            head.uri = uri;
        }
        self.account.shape = Shape::of_path(head.uri.path());
        self.enter(whole).await
    }

    async fn enter(&mut self, whole: bool) -> Result<(), Refuse> {
        let desk = Arc::clone(&self.desk);
        let head = self.head.as_ref().ok_or(Refuse::Internal)?;
        headers::check(head, desk.config.limits.head.len())?;
        // Envoy answers browsers itself, if it is to: no preflight is found.
        let route = route::route(&head.method, head.uri.path(), false)?;
        self.account.route = route.label();
        if desk.drain.is_closing() {
            return Err(Refuse::Draining);
        }
        match &route {
            Route::Models => self.json(models::list(&desk.router)),
            Route::Model(id) => self.json(models::one(&desk.router, id)?),
            Route::Health | Route::Preflight => {
                models::can_answer(&desk.router)?;
                self.json(Bytes::new());
            }
            // It is sent on at its head: its body has no end.
            Route::Unread(_) if !whole && headers::is_websocket(&head.method, &head.headers) => {
                let named = named::model_of_query(&head.uri);
                let model = self.account.asked.as_deref().or(named.as_deref());
                let query = desk.router.unread(&head.headers, model)?;
                self.send_on(query, None).await?;
            }
            Route::Generate(_) | Route::Unread(_) => {
                let gathering = desk.bodies.begin(&head.headers, desk.config.limits.body.len())?;
                self.gathering = Some(gathering);
                self.route = Some(route);
                self.said.extend(self.exchange.go_on(desk.config.epp.answers));
                if whole {
                    self.gather(Bytes::new(), true).await?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn gather(&mut self, piece: Bytes, whole: bool) -> Result<(), Refuse> {
        if whole {
            // What was refused at its head may still be on its way.
            let Some(gathering) = self.gathering.take() else { return Ok(()) };
            return self.decide(gathering.finish_with(piece)?).await;
        }
        self.gathering.as_mut().map_or(Ok(()), |gathering| gathering.push(&piece))
    }

    /// The request is whole.
    async fn decide(&mut self, body: Body) -> Result<(), Refuse> {
        let route = self.route.take().ok_or(Refuse::Internal)?;
        self.account.body_bytes = Some(body.bytes.len());
        let desk = Arc::clone(&self.desk);
        let headers = &self.head.as_ref().ok_or(Refuse::Internal)?.headers;
        let query = match route {
            Route::Generate(api) => {
                let with = (&*desk.router, &*desk.books.metrics);
                read(with, &mut self.account, (api, headers), &body.bytes)?
            }
            _ => {
                let named = named::model_of_form(headers, &body.bytes).await;
                let model = self.account.asked.as_deref().or(named.as_deref());
                desk.router.unread(headers, model)?
            }
        };
        self.send_on(query, Some(body).filter(|_| self.exchange.has_body())).await
    }

    /// Chooses a pod, and sends the request there.
    async fn send_on(&mut self, mut query: Query, body: Option<Body>) -> Result<(), Refuse> {
        let desk = Arc::clone(&self.desk);
        self.account.knows(&query);
        query.subset = self.subset.take();
        // Of an answer that does not come by, no first token is told.
        query.stream = query.stream.filter(|_| desk.config.epp.answers);
        let headers = &self.head.as_ref().ok_or(Refuse::Internal)?.headers;
        // As Envoy tells it, or as it has written it behind those of the proxies before.
        let address = self.client.map(|client| client.ip()).or_else(|| last_hop(headers));
        let client = desk.seats.client(headers, address);
        // Who is gone takes the call along.
        let seat = desk.seats.seat(&query, client, std::future::pending()).await?;
        let placement = self.account.seated(seat.ok_or(Refusal::NoReadyPod)?);
        self.account.goes_to(&placement, &query);
        self.account.attempts = 1;
        self.account.attempt.split.prefill =
            placement.prefill.as_ref().map(|it| it.endpoint.pod.addr);
        let sent = body.as_ref().map(|body| for_any_pod(&query, &body.bytes)).transpose()?;
        let is_changed = query.alias.is_some() || !query.guarded.is_empty();
        let length = sent.as_ref().filter(|_| is_changed).map(Bytes::len);
        let pods = self.pods(&query, &placement);
        let head = wire::mutation(self.told_to_pod(&placement, &pods, length), self.unwanted());
        let destination = wire::destination(&pods);
        let forward = Forward { head, destination, body: sent, is_changed };
        let (first, rest) = self.exchange.forward(forward);
        self.said.push_back(first);
        (self.placement, self.api, self.sending) =
            (Some(placement), query.api, body.map(|body| (rest, body)));
        Ok(())
    }

    /// The pod, and those that would be next, as the list that proxies walk.
    fn pods(&self, query: &Query, placement: &Placement) -> String {
        let most = usize::try_from(self.desk.config.epp.fallbacks).unwrap_or(usize::MAX);
        let next = self.desk.router.ranked(query, &[placement.endpoint.slot], most);
        let pods = iter::once(&placement.endpoint).chain(&next);
        pods.map(|endpoint| endpoint.pod.addr.to_string()).collect::<Vec<_>>().join(",")
    }

    /// What the pod, and Envoy on the way there, is told.
    fn told_to_pod(&self, placement: &Placement, pods: &str, length: Option<usize>) -> Vec<Field> {
        let mut fields = vec![field(DESTINATION, pods.to_owned())];
        let told = self.account.told_to_pods().into_iter();
        fields.extend(told.map(|(name, value)| (name.as_str().to_owned().into(), value)));
        let mut tell = |name: &'static str, value: String| fields.push(field(name, value));
        if let (Some(_), Some(head)) = (&self.account.asked, &self.head) {
            tell(":path", head.uri.to_string());
        }
        if let Some(rank) = placement.endpoint.pod.rank {
            tell("x-data-parallel-rank", rank.to_string());
        }
        if let Some(prefill) = &placement.prefill {
            tell("x-prefiller-host-port", prefill.endpoint.pod.addr.to_string());
        }
        if let Some(length) = length {
            tell("content-length", length.to_string());
        }
        fields
    }

    /// The fields with which a client would steer, but for those that are set anyhow and those that
    /// Envoy keeps to itself.
    fn unwanted(&self) -> Vec<String> {
        let fields = self.head.iter().flat_map(|head| head.headers.keys());
        let names = fields.filter(|name| headers::is_steering(name)).map(HeaderName::as_str);
        names
            .filter(|name| *name != DESTINATION && !name.starts_with("x-envoy-"))
            .map(str::to_owned)
            .collect()
    }
}
