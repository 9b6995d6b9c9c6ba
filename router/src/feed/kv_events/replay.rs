//! A publisher's history: asked once, told batch by batch.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{Frame, Told};
use super::zmtp::{Connection, Role, ZmtpError};

/// A replay that runs; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Replay {
    told: mpsc::Receiver<Result<Told, ReplayError>>,
    _task: AbortOnDropHandle<()>,
}

/// Why a history could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplayError {
    #[error(transparent)]
    Connection(#[from] ZmtpError),
    #[error("no answer in {0:?}")]
    TimedOut(Duration),
    #[error("a reply that is none")]
    Reply,
    #[error("its task ended")]
    Ended,
}

/// A publisher that is silent for so long in the middle of a reply has told all that it could send.
/// It tells from one loop, which a busy engine makes wait for milliseconds; asking again costs little.
const PAUSE: Duration = Duration::from_millis(500);

/// Batches between the socket and the index: enough to keep both busy.
const QUEUE: usize = 4;

// === impl Replay ===

impl Replay {
    /// Asks for all batches from this number on. `patience` bounds the wait for each reply.
    pub(super) fn start(from: u64, publisher: SocketAddr, patience: Duration) -> Self {
        let (sender, told) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            if let Err(error) = run(from, publisher, patience, &sender).await {
                // Nobody listens: it was given up.
                drop(sender.send(Err(error)).await);
            }
        });
        Self { told, _task: AbortOnDropHandle::new(task) }
    }

    /// The next batch, or the end.
    pub(super) async fn next(&mut self) -> Result<Told, ReplayError> {
        self.told.recv().await.unwrap_or(Err(ReplayError::Ended))
    }
}

/// Tells the history, asking again for what the publisher's socket has dropped: a ROUTER discards
/// what exceeds its high-water mark, 1000 messages where vLLM leaves it, and the end with it. Here it
/// met every history of more than 1000 batches whose engine was busy.
async fn run(
    mut from: u64,
    publisher: SocketAddr,
    patience: Duration,
    told: &mpsc::Sender<Result<Told, ReplayError>>,
) -> Result<(), ReplayError> {
    loop {
        let next = match ask(from, publisher, patience, told).await? {
            Reply::Whole => return Ok(()),
            Reply::Torn { next } => next,
        };
        if next == from {
            return Err(ReplayError::TimedOut(patience));
        }
        from = next;
    }
}

/// How one question was answered.
enum Reply {
    /// To its end, or to somebody who does not listen any more.
    Whole,
    /// Up to a batch that is missing, or with silence instead of an end.
    Torn {
        /// The batch that is due.
        next: u64,
    },
}

/// Asks once, and tells what comes without a break.
async fn ask(
    from: u64,
    publisher: SocketAddr,
    patience: Duration,
    told: &mpsc::Sender<Result<Told, ReplayError>>,
) -> Result<Reply, ReplayError> {
    let asking = async {
        let stream = TcpStream::connect(publisher).await.map_err(ZmtpError::Io)?;
        let mut connection = Connection::open(stream, Role::Dealer).await?;
        // The publisher's ROUTER wants an empty frame before the number.
        connection.send(&[b"", &from.to_be_bytes()]).await?;
        Ok::<_, ZmtpError>(connection)
    };
    let in_time = |_elapsed| ReplayError::TimedOut(patience);
    let mut connection = tokio::time::timeout(patience, asking).await.map_err(in_time)??;
    let mut due = None;
    loop {
        let wait = if due.is_some() { patience.min(PAUSE) } else { patience };
        let next = due.unwrap_or(from);
        let Ok(reply) = tokio::time::timeout(wait, connection.recv()).await else {
            return Ok(Reply::Torn { next });
        };
        let reply = Told::read(&reply?).ok_or(ReplayError::Reply)?;
        let is_end = match &reply {
            Told::End => true,
            // A history may begin later than was asked for, but it has no holes.
            Told::Batch(frame) if due.is_some_and(|due| frame.seq > due) => {
                return Ok(Reply::Torn { next });
            }
            Told::Batch(frame) => {
                due = Some(frame.seq.saturating_add(1));
                false
            }
        };
        if told.send(Ok(reply)).await.is_err() || is_end {
            return Ok(Reply::Whole);
        }
    }
}

/// Batches that wait for a replay to end, within bounds.
#[derive(Debug, Default)]
pub(super) struct Held {
    frames: Vec<Frame>,
    bytes: usize,
}

/// 16 MiB of payload for one pod.
pub(super) const HELD_BYTES: usize = 16 << 20;

// === impl Held ===

impl Held {
    /// Keeps a batch if there is room for it among at most `most`; false: it is gone.
    pub(super) fn push(&mut self, frame: Frame, most: usize) -> bool {
        if self.frames.len() >= most || self.bytes + frame.len > HELD_BYTES {
            return false;
        }
        self.bytes += frame.len;
        self.frames.push(frame);
        true
    }

    /// All of them, in order.
    pub(super) fn take(&mut self) -> Vec<Frame> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}
