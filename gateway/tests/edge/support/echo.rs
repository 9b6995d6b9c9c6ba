//! A pod that answers with exactly the bytes that it was sent.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The pod; dropping it closes its connections.
pub(crate) struct Echo {
    pub(crate) addr: SocketAddr,
    heads: Arc<Mutex<Vec<Parts>>>,
    _tasks: JoinSet<()>,
}

// === impl Echo ===

impl Echo {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let heads = Arc::<Mutex<Vec<Parts>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&heads)));
        Self { addr, heads, _tasks: tasks }
    }

    /// The head of the request that came last, probes left out.
    pub(crate) fn last_head(&self) -> Parts {
        self.heads.lock().last().cloned().expect("a request came")
    }

    /// How many requests came, probes left out.
    pub(crate) fn requests(&self) -> usize {
        self.heads.lock().len()
    }
}

async fn serve(listener: TcpListener, heads: Arc<Mutex<Vec<Parts>>>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.expect("it listens");
        let heads = Arc::clone(&heads);
        let service = service_fn(move |request| answer(request, Arc::clone(&heads)));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    heads: Arc<Mutex<Vec<Parts>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    if head.method == Method::GET && super::raw_pod::is_probe(head.uri.path()) {
        return Ok(Response::new(Full::from(super::raw_pod::models())));
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    heads.lock().push(head);
    Ok(Response::new(Full::new(body)))
}
