//! A well-behaved client, for HTTP/1.1 or HTTP/2 with prior knowledge.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// Sends requests.
pub(crate) struct Client(legacy::Client<HttpConnector, Body>);

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A body whose length the client says.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body of unknown length: chunked in HTTP/1.1, without content-length in HTTP/2.
pub(crate) fn pieces(bytes: &Bytes, piece: usize) -> Body {
    let mut rest = bytes.clone();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        pieces.push(Ok(Frame::data(rest.split_to(piece.min(rest.len())))));
    }
    BodyExt::boxed(StreamBody::new(stream::iter(pieces)))
}

/// A POST of JSON.
pub(crate) fn post(addr: SocketAddr, path: &str, body: Body) -> Request<Body> {
    request(addr, Method::POST, path, body)
}

fn request(addr: SocketAddr, method: Method, path: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("http://{addr}{path}"))
        .header("content-type", "application/json")
        .body(body)
        .expect("a valid request")
}

// === impl Client ===

impl Default for Client {
    fn default() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build_http())
    }
}

impl Client {
    pub(crate) fn http2() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http())
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(
        &self,
        addr: SocketAddr,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Reply {
        self.request(request(addr, method, path, whole(body))).await
    }

    /// The same with a request of the test's own.
    pub(crate) async fn request(&self, request: Request<Body>) -> Reply {
        Reply::of(self.open(request).await).await
    }

    /// Sends a request and gives the answer with its body still coming.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Incoming> {
        super::within("an answer's head", self.0.request(request)).await.expect("an answer")
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = super::within("an answer's body", body.collect()).await;
        let body = body.expect("the body is whole").to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().expect("it is text"));
        value.unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The status and `error.code`.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap_or("none").to_owned();
        (self.status.as_u16(), code)
    }

    /// The data of every event.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }
}
