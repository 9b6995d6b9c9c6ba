//! A publisher's live stream, dialled by us or by the pod.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::frame::Frame;
use super::zmtp::{Connection, Role, ZmtpError};

/// An open stream.
#[derive(Debug)]
pub(super) enum Stream<'a> {
    /// We dialled.
    Dialled(Connection),
    /// The pod dialled our listener; the number is its connection's.
    Lane(&'a mut Lane, u64),
}

/// What the listener's connections tell one pod.
#[derive(Debug)]
pub(super) struct Lane {
    news: mpsc::Receiver<News>,
    /// A connection that was opened while another was listened to.
    opened: Option<u64>,
}

/// Something on one of the listener's connections.
#[derive(Debug)]
pub(super) enum News {
    /// The pod's publisher speaks on this connection from now on.
    Opened(u64),
    /// It published something; the permit is its share of the bytes that may wait.
    Frame(Frame, OwnedSemaphorePermit),
    /// This connection has ended.
    Closed(u64),
}

/// Why a stream could not be opened or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Connection(#[from] ZmtpError),
    #[error("no connection in {0:?}")]
    TimedOut(Duration),
    #[error("the pod hung up")]
    HungUp,
    #[error("the listener has ended")]
    NoListener,
}

// === impl Stream ===

impl Stream<'_> {
    /// Dials a publisher and subscribes to all of it.
    pub(super) async fn dial(
        publisher: SocketAddr,
        patience: Duration,
    ) -> Result<Self, StreamError> {
        let open = async {
            let stream = TcpStream::connect(publisher).await.map_err(ZmtpError::Io)?;
            let mut connection = Connection::open(stream, Role::Subscriber).await?;
            connection.subscribe(b"").await?;
            Ok::<_, ZmtpError>(connection)
        };
        let opened = tokio::time::timeout(patience, open).await;
        Ok(Self::Dialled(opened.map_err(|_elapsed| StreamError::TimedOut(patience))??))
    }

    /// The next batch; none for a message that is no batch. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, StreamError> {
        match self {
            Self::Dialled(connection) => Ok(Frame::published(&connection.recv().await?)),
            Self::Lane(lane, current) => loop {
                match lane.news.recv().await.ok_or(StreamError::NoListener)? {
                    News::Frame(frame, _permit) => return Ok(Some(frame)),
                    News::Closed(closed) if closed == *current => return Err(StreamError::HungUp),
                    News::Closed(_) => {}
                    News::Opened(other) => {
                        lane.opened = Some(other);
                        return Err(StreamError::HungUp);
                    }
                }
            },
        }
    }
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(news: mpsc::Receiver<News>) -> Self {
        Self { news, opened: None }
    }

    /// Waits until the pod has dialled.
    pub(super) async fn open(&mut self) -> Result<Stream<'_>, StreamError> {
        let connection = loop {
            if let Some(connection) = self.opened.take() {
                break connection;
            }
            match self.news.recv().await.ok_or(StreamError::NoListener)? {
                News::Opened(connection) => self.opened = Some(connection),
                News::Frame(..) | News::Closed(_) => {}
            }
        };
        Ok(Stream::Lane(self, connection))
    }
}
