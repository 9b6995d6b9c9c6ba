//! The side channel: other pods ask here for blocks, and we ask theirs.
//!
//! vLLM's is ZeroMQ for the handshake and RDMA for the memory; what matters to a gateway is what
//! comes of it, so ours is HTTP: `POST /heartbeat` and `POST /read`, and Mooncake's `GET /query`.

use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Source;
use crate::simulator::{StartError, config::Config, fault::Fault, pod::Pod};

/// What one pod asks another.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    engine_id: Option<String>,
    name: String,
    blocks: Option<Vec<usize>>,
}

/// A pod's own side channel, bound but not yet served.
#[derive(Debug)]
pub(in crate::simulator) struct SideChannel {
    socket: TcpListener,
    address: SocketAddr,
}

/// The way to other pods' side channels.
#[derive(Debug)]
pub(in crate::simulator) struct Peers {
    http: Client<HttpConnector, Full<Bytes>>,
    /// Engines that were reached once: their death is seen at once.
    known: Mutex<HashSet<String>>,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::simulator) enum TransferError {
    #[error("the engine cannot be reached, or is another one")]
    Handshake,
    #[error("the other pod has nothing of that name")]
    Unknown,
    #[error("nothing came in time")]
    Patience,
}

// === impl SideChannel ===

impl SideChannel {
    /// Opens it beside the pod's own address.
    pub(in crate::simulator) async fn open(
        config: &Config,
        pod: SocketAddr,
    ) -> Result<Self, StartError> {
        let wanted = SocketAddr::new(pod.ip(), config.transfer.port);
        let bind = async {
            let socket = TcpListener::bind(wanted).await?;
            Ok(Self { address: socket.local_addr()?, socket })
        };
        bind.await.map_err(|source| StartError::Bind { address: wanted, source })
    }

    pub(in crate::simulator) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the pod ends.
    pub(in crate::simulator) fn serve(
        self,
        pod: Arc<Pod>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) {
        let routes = Router::new()
            .route("/query", get(query))
            .route("/heartbeat", post(heartbeat))
            .route("/read", post(read))
            .with_state(pod);
        let serve =
            axum::serve(self.socket, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "a side channel stopped serving");
            }
        });
    }
}

/// Mooncake's bootstrap: the engine of each rank.
async fn query(State(pod): State<Arc<Pod>>) -> Json<Value> {
    Json(json!({"0": {"engine_id": pod.engine_id()}}))
}

async fn heartbeat(State(pod): State<Arc<Pod>>, Json(ask): Json<Question>) -> StatusCode {
    if let Err(status) = pod.is_asked(&ask) {
        return status;
    }
    let now = pod.driver.clock();
    pod.driver.with_engine(|engine| engine.extend_lease(&ask.name, now));
    StatusCode::NO_CONTENT
}

/// What is in the blocks; they are given back then. Waits for those that are named only.
async fn read(State(pod): State<Arc<Pod>>, Json(ask): Json<Question>) -> Response {
    if pod.faults.now() == Some(Fault::DownOnRead) {
        pod.faults.set(Some(Fault::Down { for_ms: None }));
    }
    loop {
        let kept = pod.driver.kept();
        if let Err(status) = pod.is_asked(&ask) {
            return status.into_response();
        }
        let contents = pod.driver.with_engine(|engine| {
            let blocks = ask.blocks.clone().or_else(|| engine.kept_blocks(&ask.name))?;
            let contents = engine.read_blocks(&blocks);
            engine.end_lease(&ask.name);
            Some(contents)
        });
        match contents {
            Some(contents) => return Json(contents).into_response(),
            None => tokio::select! {
                () = kept => {}
                () = pod.faults.changed() => {}
                () = pod.faults.exited() => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            },
        }
    }
}

// === impl Pod ===

impl Pod {
    /// Whether it is this engine, and alive.
    fn is_asked(&self, ask: &Question) -> Result<(), StatusCode> {
        if self.faults.state().refuses().is_some() {
            return Err(StatusCode::SERVICE_UNAVAILABLE);
        }
        match &ask.engine_id {
            Some(id) if *id != self.engine_id() => Err(StatusCode::NOT_FOUND),
            _ => Ok(()),
        }
    }
}

// === impl Peers ===

impl Default for Peers {
    fn default() -> Self {
        Self { http: Client::builder(TokioExecutor::new()).build_http(), known: Mutex::default() }
    }
}

impl Peers {
    /// Reads the blocks of a source, which takes its time.
    ///
    /// # Errors
    /// An engine that was never reached is waited for until the handshake is over, as its answer
    /// may only be late; one that was is missed at once.
    pub(in crate::simulator) async fn read(
        &self,
        source: &Source,
        config: &Config,
        tokens: usize,
    ) -> Result<Vec<u64>, TransferError> {
        let transfer = &config.transfer;
        let engine = source.engine_id.clone().unwrap_or_else(|| source.address.clone());
        if self.ask(source, "heartbeat").await.is_none() {
            if !self.known.lock().contains(&engine) {
                tokio::time::sleep(transfer.handshake).await;
            }
            return Err(TransferError::Handshake);
        }
        self.known.lock().insert(engine);
        tokio::time::sleep(Duration::from_secs_f64(tokens as f64 / transfer.tokens_per_s)).await;
        let read = timeout(transfer.patience, self.ask(source, "read")).await;
        let read =
            read.map_err(|_late| TransferError::Patience)?.ok_or(TransferError::Handshake)?;
        serde_json::from_slice(&read).map_err(|_other| TransferError::Unknown)
    }

    /// The answer, if it is a good one.
    async fn ask(&self, source: &Source, what: &str) -> Option<Bytes> {
        let (engine_id, name) = (source.engine_id.clone(), source.name.clone());
        let ask = Question { engine_id, name, blocks: source.blocks.clone() };
        let body = serde_json::to_vec(&ask).expect("strings and numbers always serialize");
        let request = Request::post(format!("http://{}/{what}", source.address))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .ok()?;
        let response = self.http.request(request).await.ok()?;
        let is_good = response.status().is_success();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        is_good.then_some(body)
    }
}
