//! A pod's KV events on its sockets, as vLLM 0.32's publisher thread has them: a PUB for what
//! happens, a ROUTER for what has happened.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use zeromq::{
    Endpoint, PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqError, ZmqMessage,
};

use super::{cache::CacheEvent, config::Config, events, fault::KvFault};

/// The way to a pod's publisher. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Publisher {
    orders: mpsc::Sender<Order>,
    place: Arc<Place>,
}

/// Where it is, for `/kv_event_sources`.
#[derive(Debug)]
struct Place {
    ip: IpAddr,
    port: u16,
    replay_port: u16,
    topic: String,
}

#[derive(Debug)]
enum Order {
    Publish(Vec<CacheEvent>),
    Fault(KvFault, oneshot::Sender<()>),
}

/// The task behind it.
struct Task {
    place: Arc<Place>,
    block_size: usize,
    publish: PubSocket,
    replay: RouterSocket,
    next_seq: u64,
    history: VecDeque<(u64, Bytes)>,
    stopped: bool,
    /// Batches that reach no subscriber, and whether the replay lacks them too.
    dropping: (u64, bool),
}

/// vLLM's defaults (`KVEventsConfig`).
const BUFFER_STEPS: usize = 10_000;
const HWM: u32 = 100_000;
const MAX_QUEUE_SIZE: u32 = 100_000;
/// Steps between the engine and the socket; then the engine waits.
const QUEUE: usize = 64;

// === impl Publisher ===

impl Publisher {
    /// Opens the sockets on the address that the pod listens on.
    pub(super) async fn start(
        config: &Config,
        address: SocketAddr,
        stop: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self, ZmqError> {
        let ip = address.ip();
        let (publish, port) = open(PubSocket::new(), ip, config.kv_events.port).await?;
        let (replay, replay_port) =
            open(RouterSocket::new(), ip, config.kv_events.replay_port).await?;
        let topic = format!("kv@{address}@{}", config.model);
        let place = Arc::new(Place { ip, port, replay_port, topic });
        let (orders, queue) = mpsc::channel(QUEUE);
        let task = Task {
            place: Arc::clone(&place),
            block_size: config.engine.block_size,
            publish,
            replay,
            next_seq: 0,
            history: VecDeque::new(),
            stopped: false,
            dropping: (0, false),
        };
        tasks.spawn(task.run(queue, stop.clone()));
        Ok(Self { orders, place })
    }

    /// Publishes what happened in one step.
    pub(super) async fn publish(&self, events: Vec<CacheEvent>) {
        // An error is a pod that is being shut down.
        drop(self.orders.send(Order::Publish(events)).await);
    }

    /// Lets something happen, and waits until it has.
    pub(super) async fn fault(&self, fault: KvFault) {
        let (done, wait) = oneshot::channel();
        if self.orders.send(Order::Fault(fault, done)).await.is_ok() {
            drop(wait.await);
        }
    }

    /// One entry of `/kv_event_sources`.
    pub(super) fn source(&self) -> Value {
        json!({
            "enable_kv_cache_events": true,
            "publisher": "zmq",
            "endpoint": format!("tcp://*:{}", self.place.port),
            "replay_endpoint": format!("tcp://*:{}", self.place.replay_port),
            "buffer_steps": BUFFER_STEPS,
            "hwm": HWM,
            "max_queue_size": MAX_QUEUE_SIZE,
            "topic": self.place.topic,
        })
    }
}

// === impl Task ===

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // What an answer's step has changed is in the history before anybody with that answer asks.
                order = orders.recv() => match order {
                    Some(Order::Publish(events)) => self.publish(&events).await,
                    Some(Order::Fault(fault, done)) => {
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = self.fault(fault) => {}
                        }
                        // Whoever waited may have gone.
                        done.send(()).ok();
                    }
                    None => return,
                },
                asked = self.replay.recv() => {
                    if let Ok(asked) = asked {
                        self.tell(&asked.into_vec()).await;
                    }
                }
            }
        }
    }

    async fn publish(&mut self, events: &[CacheEvent]) {
        if self.stopped {
            return;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let payload = Bytes::from(events::encode(unix_s(), events, self.block_size));
        let (left, forget) = &mut self.dropping;
        let lost = *left > 0;
        *left = left.saturating_sub(1);
        if !(lost && *forget) {
            self.history.push_back((seq, payload.clone()));
            if self.history.len() > BUFFER_STEPS {
                self.history.pop_front();
            }
        }
        if !lost {
            let topic = Bytes::from(self.place.topic.clone());
            self.send(vec![topic, number(seq), payload]).await;
        }
    }

    async fn send(&mut self, frames: Vec<Bytes>) {
        let message = ZmqMessage::try_from(frames).expect("it has frames");
        if let Err(error) = self.publish.send(message).await {
            tracing::warn!(%error, "a batch of KV events was not published");
        }
    }

    /// Answers `[peer, "", from]` with every batch that it remembers from there on, and the end.
    async fn tell(&mut self, asked: &[Bytes]) {
        let [peer, empty, from] = asked else { return };
        let Ok(from) = <[u8; 8]>::try_from(&from[..]) else { return };
        if self.stopped {
            return;
        }
        let from = u64::from_be_bytes(from);
        let topic = Bytes::from(self.place.topic.clone());
        let remembered = self.history.iter().filter(|(seq, _)| *seq >= from).cloned();
        let mut replies: Vec<_> =
            remembered.map(|(seq, payload)| vec![topic.clone(), number(seq), payload]).collect();
        replies.push(vec![Bytes::new(), number(u64::MAX), Bytes::new()]);
        for reply in replies {
            let frames = [vec![peer.clone(), empty.clone()], reply].concat();
            let message = ZmqMessage::try_from(frames).expect("it has frames");
            if self.replay.send(message).await.is_err() {
                // Whoever asked has gone.
                return;
            }
        }
    }

    async fn fault(&mut self, fault: KvFault) {
        match fault {
            KvFault::Drop { batches, forget } => self.dropping = (batches, forget),
            KvFault::Stop => self.stopped = true,
            KvFault::Resume => (self.stopped, self.dropping) = (false, (0, false)),
            KvFault::Restart => {
                self.next_seq = 0;
                self.history.clear();
                (self.stopped, self.dropping) = (false, (0, false));
                // The old sockets close before the new ones open, as with a process.
                (self.publish, self.replay) = (PubSocket::new(), RouterSocket::new());
                self.publish = reopen(self.place.ip, self.place.port).await;
                self.replay = reopen(self.place.ip, self.place.replay_port).await;
            }
        }
    }
}

async fn open<S: Socket>(mut socket: S, ip: IpAddr, port: u16) -> Result<(S, u16), ZmqError> {
    match socket.bind(&format!("tcp://{}", SocketAddr::new(ip, port))).await? {
        Endpoint::Tcp(_, port) => Ok((socket, port)),
        _ => Err(ZmqError::Other("a TCP endpoint became another")),
    }
}

/// Opens a port that was just closed: it is free once the library's own task has ended.
async fn reopen<S: Socket>(ip: IpAddr, port: u16) -> S {
    loop {
        match open(S::new(), ip, port).await {
            Ok((socket, _)) => return socket,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn number(seq: u64) -> Bytes {
    Bytes::copy_from_slice(&seq.to_be_bytes())
}

fn unix_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
