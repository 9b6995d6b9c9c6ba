//! The gateway's own port for publishers that dial: one listener, batches routed to their pod.
//!
//! A publisher is the pod that has the IP it dials from, so that no pod can speak for another. Where
//! several pods have it, or none (address translation), its topic says which: `kv@POD@MODEL`, with
//! POD its name, address, IP or uid.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kv_index::Slot;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::counts::KvCount;
use super::frame::{Envelope, Frame};
use super::replay::HELD_BYTES;
use super::status::KvStatus;
use super::stream::{Lane, News};
use super::zmtp::{Connection, Role, ZmtpError};
use crate::pod::Pod;

/// The pods that may dial us, and the way to their tasks.
#[derive(Debug, Default)]
pub(in crate::feed) struct Lanes(Mutex<Vec<Entry>>);

#[derive(Clone, Debug)]
struct Entry {
    slot: Slot,
    pod: Pod,
    status: Arc<KvStatus>,
    way: Way,
}

/// The way to one pod's task.
#[derive(Clone, Debug)]
struct Way {
    news: mpsc::Sender<News>,
    /// Bytes that may still wait for it.
    room: Arc<Semaphore>,
}

/// A pod's place among the lanes; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Registered {
    lanes: Arc<Lanes>,
    slot: Slot,
}

/// Connections at once; a fleet of a thousand pods with some to spare.
const CONNECTIONS: usize = 4096;
/// How long a peer may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Accepts publishers until the task is aborted.
pub(in crate::feed) async fn run(listener: TcpListener, lanes: Arc<Lanes>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, peer)) => {
                    number += 1;
                    connections.spawn(serve(stream, peer, number, Arc::clone(&lanes)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a publisher of KV events");
                    // Out of descriptors: accepting again at once would only spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a publisher's connection panicked");
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, number: u64, lanes: Arc<Lanes>) {
    let mut lane = None;
    let ended = listen(stream, number, &lanes, &mut lane).await;
    tracing::debug!(%peer, ?ended, "a publisher of KV events is gone");
    if let Some((_, way)) = lane {
        // An error is a pod's task that is gone: it need not hear.
        drop(way.news.send(News::Closed(number)).await);
    }
}

type Found = (Arc<KvStatus>, Way);

async fn listen(
    stream: TcpStream,
    number: u64,
    lanes: &Lanes,
    lane: &mut Option<Found>,
) -> Result<(), ZmtpError> {
    let open = async {
        let mut connection = Connection::open(stream, Role::Subscriber).await?;
        connection.subscribe(b"").await?;
        Ok::<_, ZmtpError>(connection)
    };
    let mut connection =
        tokio::time::timeout(HANDSHAKE, open).await.map_err(|_elapsed| ZmtpError::Closed)??;
    loop {
        let message = connection.recv().await?;
        let Some(envelope) = Envelope::of(&message) else { continue };
        let (topic, peer) = (String::from_utf8_lossy(envelope.topic), connection.peer().ip());
        let is_open = lane.as_ref().is_some_and(|(_, way)| !way.news.is_closed());
        if !is_open && !lanes.knows(&topic, peer) {
            *lane = None;
            tracing::debug!(%topic, %peer, "KV events of no pod");
            continue;
        }
        let frame = envelope.open();
        if !is_open {
            let rank = frame.batch.as_ref().ok().and_then(|batch| batch.rank).unwrap_or(0);
            *lane = lanes.find(&topic, peer, rank);
            let Some((_, way)) = lane else {
                tracing::debug!(%topic, %peer, rank, "KV events of a rank that no pod has");
                continue;
            };
            drop(way.news.send(News::Opened(number)).await);
        }
        if let Some((status, way)) = lane
            && !way.pass(frame)
        {
            // Its task will find the gap, and ask.
            status.counts.add(KvCount::Dropped, 1);
        }
    }
}

// === impl Lanes ===

impl Lanes {
    /// Adds a pod, with room for so many batches.
    pub(super) fn register(
        self: &Arc<Self>,
        slot: Slot,
        pod: &Pod,
        status: &Arc<KvStatus>,
        room: usize,
    ) -> (Registered, Lane) {
        let (sender, news) = mpsc::channel(room.max(1));
        let way = Way { news: sender, room: Arc::new(Semaphore::new(HELD_BYTES)) };
        self.0.lock().push(Entry { slot, pod: pod.clone(), status: Arc::clone(status), way });
        (Registered { lanes: Arc::clone(self), slot }, Lane::new(news))
    }

    /// Whether any pod may be who speaks: the payload alone says of which of its ranks.
    fn knows(&self, topic: &str, peer: IpAddr) -> bool {
        let named = name(topic);
        let is_it = |it: &Entry| {
            it.pod.addr.ip() == peer || named.is_some_and(|name| is_named(&it.pod, name))
        };
        self.0.lock().iter().any(is_it)
    }

    fn find(&self, topic: &str, peer: IpAddr, rank: u32) -> Option<Found> {
        let named = name(topic);
        let entries = self.0.lock();
        let is_it = |it: &&Entry| named.is_some_and(|name| is_named(&it.pod, name));
        let of_rank = || entries.iter().filter(|it| u32::from(it.pod.rank.unwrap_or(0)) == rank);
        let here: Vec<_> = of_rank().filter(|it| it.pod.addr.ip() == peer).collect();
        let entry = match &here[..] {
            [] => of_rank().find(is_it)?,
            [only] => only,
            several => several.iter().copied().find(is_it)?,
        };
        Some((Arc::clone(&entry.status), entry.way.clone()))
    }
}

// === impl Way ===

impl Way {
    /// Passes a batch on; false: there was no room, or nobody to hear.
    fn pass(&self, frame: Frame) -> bool {
        let bytes = u32::try_from(frame.len).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        permit.is_ok_and(|permit| self.news.try_send(News::Frame(frame, permit)).is_ok())
    }
}

/// The pod that a topic names.
fn name(topic: &str) -> Option<&str> {
    topic.strip_prefix("kv@").and_then(|rest| rest.split('@').next())
}

fn is_named(pod: &Pod, name: &str) -> bool {
    *name == *pod.shared(&pod.name)
        || *name == *pod.shared(&pod.uid)
        || name.parse() == Ok(pod.addr)
        || name.parse() == Ok(pod.addr.ip())
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.lanes.0.lock().retain(|entry| entry.slot != self.slot);
    }
}

#[cfg(test)]
mod tests;
