//! A listener and connections that can be made to fail as real ones do.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    time::sleep,
};

use super::fault::{Fault, Faults};

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long to wait after an accept error (too many open files) or a failed re-bind.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Connections that may wait to be accepted, as the standard library has it.
const BACKLOG: u32 = 1024;

/// Accepts for one pod. While [`Fault::Refuse`] holds there is no socket.
pub(super) struct PodListener {
    address: SocketAddr,
    socket: Option<TcpListener>,
    /// Keeps the port while nobody listens on it: else a client's connection may get it.
    reserved: Option<TcpSocket>,
    faults: Faults,
}

/// A client's connection.
pub(super) struct Connection {
    stream: TcpStream,
    control: Control,
    faults: Faults,
    /// Resolves when it is closed; none then.
    closed: Option<Wait>,
    /// Which process it was opened to: see [`super::fault::State`].
    process: u64,
    /// Set while stalled: when to look again.
    stalled: Option<Wait>,
}

/// What routes may tell the connection that they are served on.
#[derive(Debug, Clone, Default)]
pub(super) struct Control(Arc<ControlState>);

#[derive(Debug, Default)]
struct ControlState {
    /// Whether faults apply: not to admin calls.
    armed: AtomicBool,
    /// Response bytes since the current request began.
    written: AtomicUsize,
}

// === impl PodListener ===

impl PodListener {
    pub(super) async fn bind(address: SocketAddr, faults: Faults) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        Ok(Self { address: socket.local_addr()?, socket: Some(socket), reserved: None, faults })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Without a socket until the fault is over.
    async fn refuse(&mut self, for_ms: Option<u64>) {
        self.socket = None;
        self.reserved = reserve(self.address).ok();
        let changed = self.faults.changed();
        match for_ms {
            None => changed.await,
            Some(ms) => {
                if tokio::time::timeout(Duration::from_millis(ms), changed).await.is_err() {
                    self.faults.set(None);
                }
            }
        }
    }

    async fn accept_one(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let reserved = self.reserved.take();
                let socket = reserved.map_or_else(|| reserve(self.address), Ok)?;
                self.socket.insert(socket.listen(BACKLOG)?)
            }
        };
        let (stream, peer) = socket.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, peer))
    }
}

/// A port that is ours and refuses connections.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Listener for PodListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let changed = self.faults.changed();
            if let Some(for_ms) = self.faults.state().refuses() {
                self.refuse(for_ms).await;
                continue;
            }
            let accepted = tokio::select! {
                accepted = self.accept_one() => accepted,
                () = changed => continue,
            };
            match accepted {
                // It came while the process died.
                Ok(_) if self.faults.state().refuses().is_some() => {}
                Ok((stream, peer)) => return (Connection::new(stream, self.faults.clone()), peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

// === impl Control ===

impl Control {
    /// A request begins; `armed` says whether faults apply to its response.
    pub(super) fn begin(&self, armed: bool) {
        self.0.armed.store(armed, Ordering::Relaxed);
        self.0.written.store(0, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, PodListener>> for Control {
    fn connect_info(stream: IncomingStream<'_, PodListener>) -> Self {
        stream.io().control.clone()
    }
}

// === impl Connection ===

impl Connection {
    fn new(stream: TcpStream, faults: Faults) -> Self {
        let process = faults.state().process;
        let closed: Option<Wait> = Some(Box::pin(faults.closed(process)));
        Self { stream, control: Control::default(), faults, closed, process, stalled: None }
    }

    /// An error once the pod is gone. Also registers to be woken then.
    fn check_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let is_open =
            self.closed.as_mut().is_some_and(|closed| closed.as_mut().poll(cx).is_pending());
        if is_open {
            return Ok(());
        }
        self.closed = None;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Ready when the fault has changed.
    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let faults = &self.faults;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(faults.changed()));
        std::task::ready!(stalled.as_mut().poll(cx));
        self.stalled = None;
        Poll::Ready(())
    }

    /// How many of `wanted` bytes may be written now.
    fn allowance(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            let state = self.faults.state();
            let fault = state.fault.filter(|_| self.control.0.armed.load(Ordering::Relaxed));
            if !state.is_open(self.process) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let written = self.control.0.written.load(Ordering::Relaxed);
            match fault {
                Some(Fault::Reset { after_bytes }) if written >= after_bytes => {
                    // With no linger, closing sends RST instead of FIN.
                    self.stream.set_zero_linger()?;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                Some(Fault::Freeze { .. }) => std::task::ready!(self.poll_changed(cx)),
                Some(Fault::Stall { after_bytes }) if written >= after_bytes => {
                    std::task::ready!(self.poll_changed(cx));
                }
                Some(Fault::Reset { after_bytes } | Fault::Stall { after_bytes }) => {
                    return Poll::Ready(Ok(wanted.min(after_bytes - written)));
                }
                _ => return Poll::Ready(Ok(wanted)),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        let allowed = std::task::ready!(self.allowance(bytes.len(), cx))?;
        let written =
            std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..allowed]))?;
        self.control.0.written.fetch_add(written, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
