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
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{Fds, ListenFds};
use pingora_core::services::listening::Service;
use pingora_proxy::{HttpProxy, http_proxy};

use crate::config::Config;
use crate::porch::{Bounds, Porch};
use crate::proxy::Gateway;
use crate::telemetry::Metrics;

/// Sockets that listen, by the address that Pingora looks them up under.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    bound: Vec<(SocketAddr, TcpListener)>,
}

/// The service behind the listeners.
pub(crate) type Traffic = Service<Porch<HttpProxy<Gateway>>>;

/// Read buffer per connection: Pingora's 64 KiB cost 104 KB per idle connection, these 44 KB, for
/// 6 to 10 % more CPU on uploads of 512 KB.
const READ_BUFFER: usize = 4 << 10;

/// HTTP/2 windows: with the protocol's 64 KiB an upload of megabytes crawls over a distance.
const H2_STREAM_WINDOW: u32 = 1 << 20;
const H2_CONNECTION_WINDOW: u32 = 8 << 20;

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

/// The service that accepts on `plain` and, with TLS, on `secure`.
#[must_use]
pub(crate) fn traffic(
    config: &Config,
    metrics: &Arc<Metrics>,
    gateway: Gateway,
    plain: SocketAddr,
    secure: Option<(SocketAddr, TlsSettings)>,
) -> Traffic {
    let mut proxy = http_proxy(&Arc::new(ServerConf::default()), gateway);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(config.deadlines.h2_idle.get());
    proxy.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.initial_window_size(H2_STREAM_WINDOW).initial_connection_window_size(H2_CONNECTION_WINDOW);
    proxy.h2_options = Some(h2);
    let bounds = Bounds {
        head: config.deadlines.request_head.get(),
        keep_alive: config.deadlines.keep_alive.get(),
        head_bytes: config.limits.head.len(),
        connections: config.limits.connections,
    };
    let metrics = Arc::clone(metrics);
    let porch = Porch::new(proxy, bounds, move |refuse| metrics.error(refuse.reason()));
    let mut service = Service::new("traffic".to_owned(), porch);
    service.add_listener(listener(plain));
    if let Some((addr, settings)) = secure {
        service.add_listener(listener(addr).tls(settings));
    }
    service
}

fn listener(addr: SocketAddr) -> ListenerConfig {
    let buffer = L4BufferSettings::default().read(READ_BUFFER);
    ListenerConfig::tcp(addr.to_string()).l4_buffer(buffer)
}
