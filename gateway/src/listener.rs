//! The traffic listeners: sockets that were bound before Pingora sees them, so that port 0 can be
//! read back, and the service that accepts on them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds};
use pingora_core::services::listening::Service;
use pingora_proxy::{HttpProxy, http_proxy};
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::drain::Drain;
use crate::ingress::{Bounds, Incident, Ingress, Shared};
use crate::proxy::Gateway;
use crate::refuse::Refuse;
use crate::telemetry::{AccessLog, Metrics};

/// Sockets that listen, by the address that Pingora looks them up under.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    bound: Vec<(SocketAddr, TcpListener)>,
}

/// The service behind a listener.
pub(crate) type Traffic = Service<Ingress<HttpProxy<Gateway>>>;

/// Where connections are told of that did not become requests.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where a line goes, if anywhere.
    pub access_log: Option<AccessLog>,
}

/// Read buffer per connection: Pingora's 64 KiB cost 104 KB per idle connection, these 44 KB, for
/// 6 to 10 % more CPU on uploads of 512 KB.
const READ_BUFFER: usize = 4 << 10;

/// HTTP/2 windows: with the protocol's 64 KiB an upload of megabytes crawls over a distance.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 8 << 20;

/// The HTTP/2 library refuses a head without a word on what is wrong with it; up to so many times
/// `limits.head` we refuse it ourselves, as in HTTP/1.
const H2_HEAD_MARGIN: usize = 4;

// === impl Sockets ===

impl Sockets {
    /// Binds an address and says which it got.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub(crate) fn bind(&mut self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        self.bound.push((addr, listener));
        Ok(addr)
    }

    /// Hands the sockets to Pingora.
    #[must_use]
    pub(crate) fn into_fds(self) -> ListenFds {
        let mut fds = Fds::new();
        for (addr, listener) in self.bound {
            fds.add(addr.to_string(), listener.into_raw_fd());
        }
        Arc::new(Mutex::new(fds))
    }
}

/// The services that accept on `plain` and, with TLS, on `secure`.
#[must_use]
pub(crate) fn traffic(
    config: &Config,
    gateway: Gateway,
    (drain, ledger): (Drain, Ledger),
    plain: SocketAddr,
    secure: Option<(SocketAddr, TlsSettings)>,
) -> Vec<Traffic> {
    let mut proxy = http_proxy(&Arc::new(ServerConf::default()), gateway);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(config.deadlines.h2_idle.get());
    proxy.server_options = Some(options);
    proxy.h2_options = Some(http2(config));
    let places = match config.limits.connections {
        0 => Semaphore::MAX_PERMITS,
        limit => limit.min(Semaphore::MAX_PERMITS),
    };
    let shared = Arc::new(Shared {
        app: Arc::new(proxy),
        bounds: Bounds {
            head: config.deadlines.request_head.get(),
            keep_alive: config.deadlines.keep_alive.get(),
            head_bytes: config.limits.head.len(),
        },
        places: Semaphore::new(places),
        drain,
        on_incident: Box::new(move |incident| ledger.enter(incident)),
    });
    let service = |addr: SocketAddr, tls: Option<TlsSettings>| {
        let ingress = Ingress::new(Arc::clone(&shared), tls.map(TlsSettings::build));
        let mut service = Service::new("traffic".to_owned(), ingress);
        let buffer = L4BufferSettings::default().read(READ_BUFFER);
        service.add_listener(ListenerConfig::tcp(addr.to_string()).l4_buffer(buffer));
        service
    };
    let plain = service(plain, None);
    let secure = secure.map(|(addr, settings)| service(addr, Some(settings)));
    [Some(plain), secure].into_iter().flatten().collect()
}

fn http2(config: &Config) -> H2Options {
    let head = config.limits.head.len().saturating_mul(H2_HEAD_MARGIN);
    let mut options = default_h2_options();
    options
        .initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    options
}

// === impl Ledger ===

impl Ledger {
    fn enter(&self, incident: Incident<'_>) {
        match incident {
            Incident::TooMany => self.metrics.error(Refuse::TooManyConnections.reason()),
            Incident::Handshake => self.metrics.failed_handshakes.inc(),
            Incident::Head(refused) => {
                let refuse = &refused.refuse;
                let record = refused.record();
                self.metrics.error(refuse.reason());
                let seconds = record.total_ms / 1e3;
                self.metrics.request_ends(record.route_name, refuse.status(), None, seconds);
                if let Some(log) = &self.access_log {
                    log.write(record);
                }
            }
        }
    }
}
