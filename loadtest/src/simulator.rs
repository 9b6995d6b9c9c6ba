//! Pods that a client cannot tell from vLLM 0.32 on the wire.
//!
//! | Layer | Files | Knows |
//! |---|---|---|
//! | model | `language` | which word comes next: a pure function of the context |
//! | memory | `cache` | blocks, chains, what is evicted first |
//! | scheduler | `engine`, `sequence`, `stats` | one step of continuous batching, as a pure function |
//! | time | `driver` | the one task that lets steps take their time; tickets that abort on drop |
//! | text | `generation` | ids to text, stop strings |
//! | wire | `server`, `routes`, `sse`, `body`, `errors`, `logprobs`, `tools`, `metrics`, `http_metrics` | vLLM's routes and shapes |
//! | transfer | `transfer`, `leases` | KV from pod to pod: connectors, side channel, blocks kept for others |
//! | events | `events`, `publisher` | what happened in the cache, as vLLM publishes it |
//! | trouble | `fault`, `listener`, `recorder` | what can be wrong with a pod, what it received |

pub mod assets;
pub mod cli;

mod body;
mod cache;
mod config;
mod driver;
mod engine;
mod errors;
mod events;
mod fault;
mod generation;
mod http_metrics;
mod language;
mod leases;
mod listener;
mod logprobs;
mod metrics;
mod pod;
mod publisher;
mod recorder;
mod routes;
mod sequence;
mod server;
mod sse;
mod stats;
mod tools;
mod transfer;

use std::{net::SocketAddr, sync::Arc};

use futures_util::future::join_all;
use router::tokenize::{TokenizeError, Tokenizer};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{
    driver::Driver,
    fault::Faults,
    http_metrics::HttpMetrics,
    listener::{Control, PodListener},
    pod::Pod,
    publisher::Publisher,
    recorder::Recorder,
    transfer::{Peers, SideChannel},
};

pub use self::{
    cache::{BlockCache, CacheEvent, Chain},
    config::{Config, Connector, EngineConfig, KvEventsConfig, OnFailure, TransferConfig},
    engine::{Busy, Engine, Step},
    fault::{Break, Fault, KvFault},
    language::{Context, Language},
    leases::Hold,
    recorder::Recorded,
    sequence::{Finish, Output, Prompt, RequestId},
    stats::{Histogram, Stats},
};

/// A running pod. Dropping it ends its tasks and closes its connections.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    pod: Arc<Pod>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Several pods of one configuration.
#[derive(Debug)]
pub struct Fleet {
    pods: Vec<Simulator>,
}

/// Why a pod could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind { address: SocketAddr, source: std::io::Error },
    /// The sockets of the KV events cannot be opened.
    #[error("KV events: {0}")]
    KvEvents(#[from] zeromq::ZmqError),
    /// The tokenizer cannot be loaded.
    #[error("tokenizer: {0}")]
    Tokenizer(#[from] TokenizeError),
    /// There is no port behind 65535.
    #[error("the last pods would need ports beyond 65535: begin at a lower --port")]
    NoPort,
}

/// What pods of one model share.
#[derive(Debug, Clone)]
struct Model {
    tokenizer: Arc<Tokenizer>,
    language: Arc<Language>,
}

// === impl Model ===

impl Model {
    fn load(config: &Config) -> Result<Self, TokenizeError> {
        let tokenizer = match &config.tokenizer_dir {
            Some(dir) => Tokenizer::from_dir(dir)?,
            None => assets::tokenizer()?,
        };
        let language = Arc::new(Language::of(&tokenizer)?);
        Ok(Self { tokenizer: Arc::new(tokenizer), language })
    }
}

// === impl Simulator ===

impl Simulator {
    /// Listens and serves.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let model = Model::load(&config)?;
        Self::start_model(config, model).await
    }

    async fn start_model(config: Config, model: Model) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let faults = Faults::new(stop.clone());
        let listener = PodListener::bind(config.listen, faults.clone())
            .await
            .map_err(|source| StartError::Bind { address: config.listen, source })?;
        let address = listener.address();
        let mut tasks = JoinSet::new();
        let publisher = match config.engine.kv_events {
            true => Some(Publisher::start(&config, address, &stop, &mut tasks).await?),
            false => None,
        };
        let engine = Engine::new(config.engine.clone(), model.language);
        let driver = Driver::new(engine, publisher.clone(), faults.clone());
        let channel = match config.transfer.connector {
            Some(_) => Some(SideChannel::open(&config, address).await?),
            None => None,
        };
        let pod = Arc::new(Pod {
            config,
            driver: driver.clone(),
            tokenizer: model.tokenizer,
            faults,
            recorder: Recorder::default(),
            http: HttpMetrics::default(),
            publisher,
            address,
            channel: channel.as_ref().map(SideChannel::address),
            engine_id: rand::random(),
            peers: Peers::default(),
            started: pod::unix_s(),
        });
        tasks.spawn(driver.run(stop.clone()));
        if let Some(channel) = channel {
            channel.serve(pod.clone(), &stop, &mut tasks);
        }
        let routes = server::router(pod.clone());
        let serve = axum::serve(listener, routes.into_make_service_with_connect_info::<Control>())
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "a simulated pod stopped serving");
            }
        });
        Ok(Self { address, pod, stop, tasks })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://ip:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Switches a fault on, or (none) off. [`Fault::Exit`] cannot be taken back.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.pod.faults.set(fault);
    }

    /// Does something to its KV events, and waits until it is done.
    pub async fn kv_fault(&self, fault: KvFault) {
        self.pod.kv_fault(fault).await;
    }

    /// The last requests as they arrived, oldest first; health and metrics polls left out.
    pub fn requests(&self) -> Vec<Recorded> {
        self.pod.recorder.all()
    }

    /// Counters, as of the engine's last step.
    pub fn stats(&self) -> Stats {
        self.pod.driver.with_engine(|engine| engine.stats().clone())
    }

    /// Names of all blocks that would be hits, one for each copy, sorted.
    pub fn cached_keys(&self) -> Vec<u64> {
        self.pod.driver.with_engine(|engine| engine.cache().cached_keys())
    }

    /// Whether its engine stands still: dead, terminated or paused.
    pub fn is_still(&self) -> bool {
        self.pod.faults.state().is_still()
    }

    /// Requests running and waiting.
    pub fn in_flight(&self) -> usize {
        let reading = self.pod.driver.reading();
        reading + self.pod.driver.with_engine(|engine| engine.running() + engine.waiting())
    }

    /// Where other pods read its KV; none without a connector.
    pub fn side_channel(&self) -> Option<SocketAddr> {
        self.pod.channel
    }

    /// Requests whose blocks are kept for another pod.
    pub fn leases(&self) -> usize {
        self.pod.driver.with_engine(|engine| engine.leases())
    }

    /// Lets every lease end now, and others overwrite the blocks that were kept.
    pub fn lose_leases(&self) {
        self.pod.driver.with_engine(Engine::lose_leases);
    }

    /// Forgets every cached block that is not in use.
    pub fn clear_cache(&self) {
        self.pod.driver.with_engine(Engine::clear_cache);
    }

    /// Resolves when the pod has died of [`Fault::Exit`].
    pub async fn exited(&self) {
        self.stop.cancelled().await;
    }

    /// Closes every connection and waits until nothing of the pod is left.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Connections end themselves on this; the set aborts the two tasks.
        self.stop.cancel();
    }
}

// === impl Fleet ===

impl Fleet {
    /// Starts `count` pods. With a fixed port the others take the ports after it.
    pub async fn start(count: u16, config: Config) -> Result<Self, StartError> {
        let model = Model::load(&config)?;
        let mut pods = Vec::new();
        for offset in 0..count {
            let mut config = config.clone();
            if config.listen.port() != 0 {
                let port = config.listen.port().checked_add(offset).ok_or(StartError::NoPort)?;
                config.listen.set_port(port);
            }
            if config.transfer.port != 0 {
                config.transfer.port += offset;
            }
            // Often given as two neighbours.
            for port in [&mut config.kv_events.port, &mut config.kv_events.replay_port] {
                *port += if *port == 0 { 0 } else { 2 * offset };
            }
            pods.push(Simulator::start_model(config, model.clone()).await?);
        }
        Ok(Self { pods })
    }

    /// The pods, in order.
    pub fn pods(&self) -> &[Simulator] {
        &self.pods
    }

    /// Resolves when every pod has died of [`Fault::Exit`].
    pub async fn exited(&mut self) {
        join_all(self.pods.iter().map(Simulator::exited)).await;
    }

    /// Ends all pods and waits for them.
    pub async fn shutdown(self) {
        join_all(self.pods.into_iter().map(Simulator::shutdown)).await;
    }
}
