//! A publisher of KV events on a ZeroMQ library that is not ours, framed as vLLM 0.32 does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use zeromq::{
    Endpoint, PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage, ZmqResult,
};

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Say {
    /// One block of two tokens, named by its number, after the one before it.
    Stored(u64),
    Removed(u64),
    Cleared,
}

/// A running publisher; dropping it closes its sockets, as the death of its process does.
pub(crate) struct FakePublisher {
    socket: PubSocket,
    pub(crate) publish: u16,
    pub(crate) replay: u16,
    buffer: Arc<Mutex<Vec<(u64, Bytes)>>>,
    /// Replies to one question that its socket keeps; it drops the others.
    high_water: Arc<AtomicUsize>,
    next: u64,
    /// Each process publishes later than the one before.
    clock_s: f64,
    topic: String,
    /// Aborts the replay when it is dropped.
    _replay: JoinSet<()>,
}

impl FakePublisher {
    /// Listens on free ports.
    pub(crate) async fn start() -> Self {
        Self::start_on(0, 0, 1000.0).await
    }

    /// Dials a gateway besides.
    pub(crate) async fn dial(&mut self, gateway: SocketAddr) {
        self.socket.connect(&format!("tcp://{gateway}")).await.expect("the gateway listens");
    }

    /// Listens on these ports; 0 is a free one.
    pub(crate) async fn start_on(publish: u16, replay: u16, clock_s: f64) -> Self {
        let mut socket = PubSocket::new();
        let publish = bind(&mut socket, publish).await;
        let mut router = RouterSocket::new();
        let replay = bind(&mut router, replay).await;
        let buffer = Arc::<Mutex<Vec<_>>>::default();
        let mut tasks = JoinSet::new();
        let high_water = Arc::new(AtomicUsize::new(usize::MAX));
        tasks.spawn(serve_replay(router, Arc::clone(&buffer), Arc::clone(&high_water)));
        let topic = "kv@pod@tiny".to_owned();
        Self {
            socket,
            publish,
            replay,
            buffer,
            high_water,
            next: 0,
            clock_s,
            topic,
            _replay: tasks,
        }
    }

    /// What `/kv_event_sources` says of it.
    pub(crate) fn sources(&self) -> serde_json::Value {
        serde_json::json!({"0": {
            "enable_kv_cache_events": true, "publisher": "zmq",
            "endpoint": format!("tcp://*:{}", self.publish),
            "replay_endpoint": format!("tcp://*:{}", self.replay),
            "buffer_steps": 10000, "hwm": 100_000, "max_queue_size": 100_000,
            "topic": self.topic,
        }})
    }

    /// Publishes a batch and remembers it.
    pub(crate) async fn publish(&mut self, events: &[Say]) {
        let (seq, payload) = self.batch(events);
        self.buffer.lock().push((seq, payload.clone()));
        self.send(seq, payload).await;
    }

    /// Remembers a batch that nobody hears.
    pub(crate) fn whisper(&mut self, events: &[Say]) {
        let batch = self.batch(events);
        self.buffer.lock().push(batch);
    }

    /// A batch that nobody hears and nobody can ask for.
    pub(crate) fn lose(&mut self, events: &[Say]) {
        self.batch(events);
    }

    /// Its socket drops what exceeds so many replies to one question, as a ROUTER does.
    pub(crate) fn keep_at_most(&self, replies: usize) {
        self.high_water.store(replies, Ordering::Relaxed);
    }

    /// Forgets the history.
    pub(crate) fn forget(&mut self) {
        self.buffer.lock().clear();
    }

    async fn send(&mut self, seq: u64, payload: Bytes) {
        let topic = Bytes::from(self.topic.clone());
        let frames = vec![topic, seq.to_be_bytes().to_vec().into(), payload];
        let message = ZmqMessage::try_from(frames).expect("it has frames");
        self.socket.send(message).await.expect("it is open");
    }

    fn batch(&mut self, events: &[Say]) -> (u64, Bytes) {
        let seq = self.next;
        self.next += 1;
        self.clock_s += 1.0;
        (seq, encode(self.clock_s, events).into())
    }
}

async fn bind(socket: &mut impl Socket, port: u16) -> u16 {
    loop {
        match socket.bind(&format!("tcp://127.0.0.1:{port}")).await {
            Ok(Endpoint::Tcp(_, port)) => return port,
            Ok(other) => unreachable!("bound to TCP, not {other}"),
            // A dropped socket's port is free once its own task has ended.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Answers as vLLM's publisher thread does, until it is aborted.
async fn serve_replay(
    mut router: RouterSocket,
    buffer: Arc<Mutex<Vec<(u64, Bytes)>>>,
    high_water: Arc<AtomicUsize>,
) {
    while let Ok(asked) = router.recv().await {
        let [peer, empty, from] = &asked.into_vec()[..] else { continue };
        let from = u64::from_be_bytes(from[..].try_into().expect("eight bytes"));
        let kept: Vec<_> = buffer.lock().iter().filter(|it| it.0 >= from).cloned().collect();
        let mut replies: Vec<_> = kept
            .into_iter()
            .map(|(seq, payload)| (Bytes::from_static(b"kv@pod@tiny"), seq, payload))
            .collect();
        replies.push((Bytes::new(), u64::MAX, Bytes::new()));
        replies.truncate(high_water.load(Ordering::Relaxed));
        for (topic, seq, payload) in replies {
            let seq = Bytes::copy_from_slice(&seq.to_be_bytes());
            let frames = vec![peer.clone(), empty.clone(), topic, seq, payload];
            let sent: ZmqResult<()> =
                router.send(ZmqMessage::try_from(frames).expect("it has frames")).await;
            if sent.is_err() {
                // Whoever asked has gone.
                break;
            }
        }
    }
}

fn encode(published_at_s: f64, events: &[Say]) -> Vec<u8> {
    use rmp::encode as w;
    let mut out = Vec::new();
    w::write_array_len(&mut out, 3).expect("memory");
    w::write_f64(&mut out, published_at_s).expect("memory");
    w::write_array_len(&mut out, u32::try_from(events.len()).expect("few")).expect("memory");
    for event in events {
        let (name, fields, block) = match event {
            Say::Stored(block) => ("BlockStored", 5, Some(*block)),
            Say::Removed(block) => ("BlockRemoved", 2, Some(*block)),
            Say::Cleared => ("AllBlocksCleared", 1, None),
        };
        w::write_map_len(&mut out, fields).expect("memory");
        w::write_str(&mut out, "type").expect("memory");
        w::write_str(&mut out, name).expect("memory");
        let Some(block) = block else { continue };
        w::write_str(&mut out, "block_hashes").expect("memory");
        w::write_array_len(&mut out, 1).expect("memory");
        w::write_uint(&mut out, block).expect("memory");
        if matches!(event, Say::Removed(_)) {
            continue;
        }
        w::write_str(&mut out, "parent_block_hash").expect("memory");
        match block.checked_sub(1).filter(|parent| *parent > 0) {
            Some(parent) => drop(w::write_uint(&mut out, parent).expect("memory")),
            None => w::write_nil(&mut out).expect("memory"),
        }
        w::write_str(&mut out, "token_ids").expect("memory");
        w::write_array_len(&mut out, 2).expect("memory");
        w::write_uint(&mut out, 2 * block).expect("memory");
        w::write_uint(&mut out, 2 * block + 1).expect("memory");
        w::write_str(&mut out, "block_size").expect("memory");
        w::write_uint(&mut out, 2).expect("memory");
    }
    w::write_uint(&mut out, 0).expect("memory");
    out
}
