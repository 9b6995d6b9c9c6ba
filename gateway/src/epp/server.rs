//! The gRPC server: Envoy's calls, and health.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::{ProcessingRequest, ProcessingResponse};
use futures_util::{Stream, StreamExt as _, future, stream};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::{Code, Request, Response, Status, Streaming};

use super::call::Call;
use super::{Desk, health};
use crate::drain::Phase;
use crate::refuse::Refuse;

/// Windows: with the protocol's 64 KiB each body would come in steps.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// What a message may have around a body that comes in one piece.
const ENVELOPE: usize = 64 << 10;

/// An Envoy whose machine is gone would keep its places for ever: a connection that says nothing for
/// this long is asked, and closed if it does not answer in as long again.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Handshakes at once.
const HANDSHAKES: usize = 4096;

/// Requests at once on one connection: Envoy opens another beyond it. A body that comes in one piece is put
/// together before the budget of bodies sees it, so a connection may hold that many of them unseen.
const STREAMS: u32 = 512;

/// How long nothing is accepted after it failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What calls get to end when we stop.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Answers calls.
#[derive(Debug)]
struct Processor {
    desk: Arc<Desk>,
    stopped: watch::Receiver<bool>,
}

/// What Envoy is told in one call.
type Said = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

/// Serves until stopped; from the end of the linger on, connections are sent away.
pub(crate) async fn serve(
    desk: Desk,
    (listener, tls): (TcpListener, Option<ServerConfig>),
    stopped: watch::Receiver<bool>,
) {
    let desk = Arc::new(desk);
    let tcp = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = async {
        match tls {
            Some(tls) => serve_on(&desk, handshakes(tcp, tls, &desk), stopped.clone()).await,
            None => serve_on(&desk, tcp, stopped.clone()).await,
        }
    };
    let mut over = stopped.clone();
    tokio::select! {
        served = served => if let Err(error) = served {
            tracing::error!(%error, "the gRPC server failed");
        },
        () = async { is_set(&mut over).await; sleep(LAST_WORDS).await } => {}
    }
    is_set(&mut over).await;
}

async fn serve_on<C>(
    desk: &Arc<Desk>,
    connections: impl Stream<Item = io::Result<C>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    let processor = Processor { desk: Arc::clone(desk), stopped: stopped.clone() };
    let calls = ExternalProcessorServer::new(processor)
        .max_decoding_message_size(desk.config.limits.body.len().saturating_add(ENVELOPE))
        .max_encoding_message_size(usize::MAX);
    let server = Server::builder()
        .max_concurrent_streams(Some(STREAMS))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .add_service(health)
        .add_service(calls);
    let end = async {
        tokio::select! {
            () = desk.drain.reached(Phase::Closing) => {}
            () = is_set(&mut stopped) => {}
        }
    };
    let told = async {
        health::tell(reporter, Arc::clone(&desk.router), desk.drain.clone()).await;
        future::pending::<()>().await;
    };
    tokio::select! {
        served = server.serve_with_incoming_shutdown(connections, end) => served,
        () = told => Ok(()),
    }
}

/// Connections once their handshakes are done; those that fail are counted.
fn handshakes(
    tcp: TcpIncoming,
    tls: ServerConfig,
    desk: &Desk,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let limit = desk.config.deadlines.request_head.get();
    let failed = desk.books.metrics.failed_handshakes.clone();
    let handshake = move |tcp: io::Result<TcpStream>| {
        let acceptor = acceptor.clone();
        async move {
            let tcp = match tcp {
                Ok(tcp) => tcp,
                // Out of descriptors, most likely: to ask again at once would only burn.
                Err(error) => {
                    sleep(ACCEPT_PAUSE).await;
                    return Err(error);
                }
            };
            match timeout(limit, acceptor.accept(tcp)).await {
                Ok(done) => done,
                Err(late) => Err(late.into()),
            }
        }
    };
    tcp.map(handshake).buffer_unordered(HANDSHAKES).filter(move |done| {
        if done.is_err() {
            failed.inc();
        }
        future::ready(done.is_ok())
    })
}

async fn is_set(stopped: &mut watch::Receiver<bool>) {
    // An error: whoever could stop us is gone, which is the same.
    drop(stopped.wait_for(|stop| *stop).await);
}

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = Said;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Said>, Status> {
        let call = Call::new(Arc::clone(&self.desk));
        let said = said(call, request.into_inner(), self.stopped.clone());
        Ok(Response::new(Box::pin(said)))
    }
}

/// What Envoy is told in answer to its messages. There is no task: a call that is dropped gives back
/// what it holds.
fn said(
    call: Call,
    messages: impl Stream<Item = Result<ProcessingRequest, Status>> + Unpin + Send,
    stopped: watch::Receiver<bool>,
) -> impl Stream<Item = Result<ProcessingResponse, Status>> + Send {
    stream::try_unfold((call, messages, stopped), |(mut call, mut messages, mut stopped)| async {
        let next = tokio::select! {
            biased;
            () = is_set(&mut stopped) => None,
            next = next(&mut call, &mut messages) => next?,
        };
        Ok(next.map(|next| (next, (call, messages, stopped))))
    })
}

async fn next(
    call: &mut Call,
    messages: &mut (impl Stream<Item = Result<ProcessingRequest, Status>> + Unpin),
) -> Result<Option<ProcessingResponse>, Status> {
    loop {
        if let Some(response) = call.says() {
            return Ok(Some(response));
        }
        if call.is_over() {
            return Ok(None);
        }
        let (drain, due, is_spare) = (call.drain(), call.body_due(), call.is_spare());
        let message = tokio::select! {
            biased;
            message = messages.next() => message,
            () = at(due) => {
                call.refuse(&Refuse::BodyTooSlow);
                continue;
            }
            () = drain.reached(Phase::Closing), if is_spare => return Ok(None),
            () = drain.reached(Phase::Cutting) => {
                call.cut();
                continue;
            }
        };
        let message = match message {
            Some(Ok(message)) => message,
            // A body in one piece that was not even read.
            Some(Err(status)) if status.code() == Code::OutOfRange => {
                call.refuse_body();
                continue;
            }
            // An Envoy that is gone, or whose client is.
            Some(Err(status)) => return Err(status),
            None => return Ok(None),
        };
        call.take(message).await.map_err(|broken| {
            tracing::warn!(%broken, "Envoy's call cannot be answered");
            Status::failed_precondition(broken.to_string())
        })?;
    }
}

/// Resolves at this moment, if there is one.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => future::pending().await,
    }
}
