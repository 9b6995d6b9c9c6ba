//! The listeners that requests come in by.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::services::Service as _;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::{StartError, until};
use crate::config::Config;
use crate::epp::{self, Desk, EppTls};
use crate::listener::{self, Ledger, Sockets, Traffic};
use crate::proxy::Gateway;
use crate::request::Parts;
use crate::telemetry::Metrics;
use crate::tls::{Certificate, Reloader};

/// What a door runs on.
pub(super) struct Frame<'a> {
    pub(super) tasks: &'a mut JoinSet<()>,
    pub(super) stopped: &'a watch::Receiver<bool>,
    /// Has the certificate's files looked at.
    pub(super) reload: &'a Arc<Notify>,
}

// === impl Frame ===

impl Frame<'_> {
    /// The gateway itself: where it takes traffic, plain and under TLS.
    pub(super) fn gateway(
        &mut self,
        parts: Parts,
    ) -> Result<(SocketAddr, Option<SocketAddr>), StartError> {
        let config = Arc::clone(&parts.config);
        let ledger = Ledger {
            metrics: Arc::clone(&parts.books.metrics),
            access_log: parts.books.access_log.clone(),
        };
        let mut sockets = Sockets::default();
        let addr = sockets.bind(config.listen).map_err(taken("listen", config.listen))?;
        let mut secure = None;
        if let (Some(addr), Some(certificate)) =
            (config.tls.listen, self.certificate(&config, &ledger.metrics)?)
        {
            let settings = certificate.settings().map_err(StartError::TlsSettings)?;
            let addr = sockets.bind(addr).map_err(taken("tls.listen", addr))?;
            secure = Some((addr, settings));
        }
        let tls_addr = secure.as_ref().map(|(addr, _)| *addr);
        let drain = parts.drain.clone();
        let gateway = Gateway::new(parts);
        let services = listener::traffic(&config, gateway, (drain, ledger), addr, secure);
        self.accept(services, sockets);
        Ok((addr, tls_addr))
    }

    /// The picker of pods for an Envoy.
    pub(super) async fn epp(&mut self, parts: Parts) -> Result<SocketAddr, StartError> {
        let (config, metrics) = (Arc::clone(&parts.config), Arc::clone(&parts.books.metrics));
        let tls = match config.epp.tls {
            EppTls::Off => None,
            EppTls::SelfSigned => Some(epp::tls::self_signed()?),
            EppTls::Files => self.certificate(&config, &metrics)?.map(epp::tls::of_files),
        };
        let listen = config.epp.listen;
        let listener = TcpListener::bind(listen).await.map_err(taken("epp.listen", listen))?;
        let addr = listener.local_addr().map_err(taken("epp.listen", listen))?;
        let desk = Desk::new(parts);
        self.tasks.spawn(epp::serve(desk, (listener, tls), self.stopped.clone()));
        Ok(addr)
    }

    /// The certificate, which follows its files from now on.
    fn certificate(
        &mut self,
        config: &Config,
        metrics: &Metrics,
    ) -> Result<Option<Arc<Certificate>>, StartError> {
        let Some(reloader) = reloader(config, metrics)? else { return Ok(None) };
        let certificate = reloader.certificate();
        let reloading = reloader.run(config.tls.reload_interval.get(), Arc::clone(self.reload));
        self.tasks.spawn(until(self.stopped.clone(), reloading));
        Ok(Some(certificate))
    }

    /// Runs the services that accept on these sockets.
    fn accept(&mut self, services: Vec<Traffic>, sockets: Sockets) {
        let fds = sockets.into_fds();
        for mut traffic in services {
            let (fds, shutdown) = (Arc::clone(&fds), self.stopped.clone());
            self.tasks.spawn(async move { traffic.start_service(Some(fds), shutdown, 1).await });
        }
    }
}

/// The error of an address that cannot be listened on.
pub(super) fn taken(key: &'static str, addr: SocketAddr) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Listen { key, addr, source }
}

/// The certificate, if there is one.
pub(super) fn reloader(config: &Config, metrics: &Metrics) -> Result<Option<Reloader>, StartError> {
    let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) else { return Ok(None) };
    Ok(Some(Reloader::open(cert, key, metrics.clone())?))
}
