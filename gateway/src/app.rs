//! All wiring, to be read from top to bottom.

mod brain;
mod doors;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, future};
use prometheus::Registry;
use router::pool::{self, PoolGuard};
use router::tokenize::TokenizerSource;
use router::{Router, TokenizerReport, Tokenizers};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};

use crate::admin::{AdminServer, Pages};
use crate::config::{Config, Loaded, keys};
use crate::disagreements;
use crate::drain::{Drain, Outcome, Signal};
use crate::request::Parts;
use crate::request::body::BodyBudget;
use crate::request::books::Books;
use crate::telemetry;
use crate::telemetry::traces::{Traces, TracesError};
use crate::telemetry::{AccessLog, AccessLogWriter, LogLevel, Metrics, Readings};
use brain::{brain, fetch_tokenizers};
use doors::{Frame, reloader, taken};

pub(crate) use brain::tokenizers;

/// A gateway that runs.
#[derive(Debug)]
pub struct App {
    /// Where it takes traffic.
    pub addr: SocketAddr,
    /// Where it takes traffic under TLS.
    pub tls_addr: Option<SocketAddr>,
    /// Where the admin pages are.
    pub admin_addr: SocketAddr,
    /// What it decides with.
    pub router: Arc<Router>,
    drain: Drain,
    drain_settings: crate::config::Drain,
    /// Has the certificate's files looked at.
    reload: Arc<Notify>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    admin: AdminServer,
    pool: PoolGuard,
    access_log: Option<AccessLogWriter>,
    traces: Option<Traces>,
}

/// Who sends requests here.
#[derive(Clone, Copy, Debug)]
enum Door {
    /// Clients.
    Gateway,
    /// An Envoy, which only asks where to.
    Epp,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {addr}: {source}{}", moved_by(key))]
    Listen {
        /// Its setting.
        key: &'static str,
        /// Which.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// A certificate that nobody can verify.
    #[error("epp.tls: {0}")]
    SelfSigned(#[from] crate::epp::SelfSignedError),
    /// Discovery.
    #[error(transparent)]
    Pool(#[from] pool::StartError),
    /// A tokenizer.
    #[error("tokenizers: {model}: {from}: {source}")]
    Tokenizer {
        /// Of which model.
        model: String,
        /// Where it should come from.
        from: TokenizerSource,
        /// Why.
        source: router::tokenize::TokenizeError,
    },
    /// A thread for the access log.
    #[error("no thread for the access log: {0}")]
    AccessLog(io::Error),
    /// Metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Spans.
    #[error(transparent)]
    Traces(#[from] TracesError),
    /// TLS settings.
    #[error("TLS settings: {0}")]
    TlsSettings(Box<pingora_core::Error>),
}

// === impl App ===

impl App {
    /// Starts everything: when this returns, the listeners accept. The admin listener changes the
    /// level of the log by `log_level`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(loaded: Loaded, log_level: LogLevel) -> Result<Self, StartError> {
        let tokenizers = tokenizers(&loaded.config)?;
        Self::open((loaded, tokenizers), log_level, Door::Gateway).await
    }

    /// The same with tokenizers that no setting names: the demo's is compiled in.
    ///
    /// # Errors
    /// See [`StartError`].
    #[cfg(feature = "demo")]
    pub(crate) async fn start_with(
        loaded: Loaded,
        tokenizers: Tokenizers,
        log_level: LogLevel,
    ) -> Result<Self, StartError> {
        Self::open((loaded, tokenizers), log_level, Door::Gateway).await
    }

    /// The same with the door for an Envoy, which asks here where its requests should go.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_epp(loaded: Loaded, log_level: LogLevel) -> Result<Self, StartError> {
        let tokenizers = tokenizers(&loaded.config)?;
        Self::open((loaded, tokenizers), log_level, Door::Epp).await
    }

    async fn open(
        (loaded, tokenizers): (Loaded, Tokenizers),
        log_level: LogLevel,
        door: Door,
    ) -> Result<Self, StartError> {
        router::tls::install_provider();
        let config = Arc::new(loaded.config.clone());
        let registry = Registry::new();
        let metrics = Arc::new(metrics(&config, &registry)?);
        metrics.config_in_force(&loaded.hash);
        let mut tasks = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        let reload = Arc::<Notify>::default();

        let (router, pool) = brain(&config, tokenizers)?;
        tasks.spawn(until(stopped.clone(), fetch_tokenizers(router.tokenizers().clone())));
        tasks.spawn(until(stopped.clone(), disagreements::log(Arc::clone(&router))));

        let (access_log, writer) = access_log(&config, &metrics)?;
        let traces = Traces::open(&config.traces)?;
        let (drain, held) = (Drain::default(), metrics.body_bytes_held.clone());
        let parts = Parts {
            config: Arc::clone(&config),
            router: Arc::clone(&router),
            books: Arc::new(Books { metrics, access_log, traces: traces.clone() }),
            drain: drain.clone(),
            bodies: BodyBudget::new(config.limits.bodies_held_bytes(), held),
        };
        let mut frame = Frame { tasks: &mut tasks, stopped: &stopped, reload: &reload };
        let (addr, tls_addr) = match door {
            Door::Gateway => frame.gateway(parts)?,
            Door::Epp => (frame.epp(parts).await?, None),
        };

        let loaded = Arc::new(loaded);
        let pages = pages(&router, registry, (drain.clone(), log_level), &loaded);
        let admin = AdminServer::start(config.admin_listen, pages).await;
        let admin = admin.map_err(taken("admin_listen", config.admin_listen))?;
        let admin_addr = admin.local_addr();

        let tls = tls_addr.map(tracing::field::display);
        tracing::info!(%addr, tls_addr = tls, %admin_addr, config = %loaded.hash, "listening");
        Ok(Self {
            addr,
            tls_addr,
            admin_addr,
            router,
            drain,
            drain_settings: config.drain,
            reload,
            stop,
            tasks,
            admin,
            pool,
            access_log: writer,
            traces,
        })
    }

    /// Serves until a signal ends it, then drains and stops; `hangups` have the certificate's files
    /// looked at. The caller listens for both from before the start on: a signal that comes in between
    /// would kill the process.
    ///
    /// # Errors
    /// A task that panicked.
    pub async fn run(
        mut self,
        signals: impl Stream<Item = Signal> + Unpin,
        hangups: impl Stream<Item = ()>,
    ) -> io::Result<Outcome> {
        let drain = self.drain.clone();
        let reload = Arc::clone(&self.reload);
        let reloads = hangups.for_each(|()| {
            tracing::info!("SIGHUP: looking at the certificate's files");
            reload.notify_one();
            future::ready(())
        });
        let reloads = async {
            reloads.await;
            future::pending::<Infallible>().await
        };
        let outcome = tokio::select! {
            outcome = drain.run(signals, self.drain_settings) => Ok(outcome),
            never = reloads => match never {},
            // None of them ends by itself: without it we would serve half, and say that all is well.
            ended = self.tasks.join_next() => Err(match ended {
                Some(Err(error)) => io::Error::other(error),
                _ => io::Error::other("a task of the gateway ended by itself"),
            }),
            () = self.pool.ended() => Err(io::Error::other("the pool of pods ended by itself")),
        };
        let stopped = self.stop().await.map_err(io::Error::other);
        outcome.and_then(|outcome| stopped.map(|()| outcome))
    }

    /// Stops now: listeners close, running requests are cut.
    ///
    /// # Errors
    /// A task that panicked.
    pub async fn stop(mut self) -> Result<(), JoinError> {
        self.stop.send_replace(true);
        let mut first = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            first = first.and(ended);
        }
        self.admin.shutdown().await;
        first = first.and(self.pool.shutdown().await);
        drop(self.access_log);
        if let Some(traces) = self.traces {
            traces.shutdown().await;
        }
        first
    }
}

/// What the admin listener shows, and what can be changed there.
fn pages(
    router: &Arc<Router>,
    registry: Registry,
    (drain, log_level): (Drain, LogLevel),
    loaded: &Arc<Loaded>,
) -> Pages {
    Pages {
        readings: Readings::of(Arc::clone(router)),
        pool: router.pool().clone(),
        log_level,
        decisions: Arc::clone(router.decisions()),
        registry,
        drain,
        loaded: Arc::clone(loaded),
    }
}

/// The families that count, under an Endpoint Picker's names too if those are wanted.
fn metrics(config: &Config, registry: &Registry) -> Result<Metrics, prometheus::Error> {
    let metrics = Metrics::new(registry)?;
    if config.metrics.epp_names { metrics.with_epp_names(registry) } else { Ok(metrics) }
}

/// Loads what a start would load, short of listening, of asking for pods and of downloading.
/// Returns which tokenizers there are.
///
/// # Errors
/// See [`StartError`].
pub fn check(config: &Config) -> Result<Vec<TokenizerReport>, StartError> {
    let tokenizers = tokenizers(config)?;
    reloader(config, &Metrics::new(&Registry::new())?)?;
    Ok(tokenizers.report())
}

/// How to listen elsewhere.
fn moved_by(name: &str) -> String {
    let key = keys().iter().find(|key| key.name() == name);
    key.map(|key| format!(" (`--{} ADDRESS` or {} moves it)", key.flag(), key.env()))
        .unwrap_or_default()
}

/// Runs `task` until told to stop.
async fn until(mut stopped: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stopped.wait_for(|stop| *stop) => {}
        () = task => {}
    }
}

fn access_log(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Option<AccessLog>, Option<AccessLogWriter>), StartError> {
    if !config.log.access {
        return Ok((None, None));
    }
    let (log, writer) = telemetry::access_log::start(
        io::stdout(),
        config.log.format,
        config.log.access_queue,
        metrics.log_lines_dropped.clone(),
    )
    .map_err(StartError::AccessLog)?;
    Ok((Some(log), Some(writer)))
}
