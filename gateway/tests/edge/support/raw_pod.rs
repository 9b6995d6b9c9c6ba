//! A pod of bare TCP that does what a test tells it, and tells what it saw.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

/// The pod; dropping it closes its connections.
pub(crate) struct RawPod {
    pub(crate) addr: SocketAddr,
    script: Arc<Script>,
    seen: mpsc::UnboundedReceiver<Seen>,
    _tasks: JoinSet<()>,
}

struct Script {
    replies: Mutex<VecDeque<Reply>>,
    /// Ends a reply that is held.
    release: Notify,
    tell: mpsc::UnboundedSender<Seen>,
}

/// What the pod does with one request.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

/// What it does when its bytes are out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    /// It waits for the next request.
    Next,
    /// It closes.
    Close,
    /// It resets the connection.
    Reset,
    /// The same, when it has computed for 100 ms.
    ResetLate,
    /// It says nothing more and waits until the gateway closes, or until it is released: then it
    /// says `[DONE]` and closes.
    Hold,
    /// It sends chunks for as long as they are taken.
    Flood,
    /// It goes on with a byte every 10 ms, for as long as they are taken.
    Drip,
    /// It does not even read the request's body, for ever.
    Deaf,
}

/// What the pod saw.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    /// A request's body.
    Request(Vec<u8>),
    /// The gateway closed the connection that was held or flooded.
    Closed,
}

/// Whether the gateway asks this on its own.
pub(crate) fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/v1/models" | "/metrics" | "/kv_event_sources")
}

/// The list of models, as vLLM has it.
pub(crate) fn models() -> &'static str {
    r#"{"object":"list","data":[{"id":"tiny","object":"model","created":1,"owned_by":"vllm","root":"tiny","parent":null,"max_model_len":8192}]}"#
}

/// A whole answer.
pub(crate) fn whole(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The head of a stream of events, and these events.
pub(crate) fn stream(events: &[&str]) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for event in events {
        let data = format!("data: {event}\n\n");
        bytes.extend_from_slice(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes());
    }
    bytes
}

/// A stream's end.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// An event with a token.
pub(crate) const TOKEN: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hello"}}]}"#;

// === impl Reply ===

impl Reply {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then }
    }

    /// A whole answer on a connection that stays.
    pub(crate) fn whole(status: &str, body: &str) -> Self {
        Self::new(whole(status, body), Then::Next)
    }
}

// === impl RawPod ===

impl RawPod {
    /// A pod that answers its requests in this order, the last reply for ever.
    pub(crate) async fn start(replies: impl Into<VecDeque<Reply>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let (tell, seen) = mpsc::unbounded_channel();
        let release = Notify::new();
        let script = Arc::new(Script { replies: Mutex::new(replies.into()), release, tell });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, Arc::clone(&script)));
        Self { addr, script, seen, _tasks: tasks }
    }

    /// From now on it answers with these.
    pub(crate) fn tell(&self, replies: impl Into<VecDeque<Reply>>) {
        *self.script.replies.lock() = replies.into();
    }

    /// Ends the reply that is held.
    pub(crate) fn release(&self) {
        self.script.release.notify_one();
    }

    /// The next thing that it sees.
    pub(crate) async fn sees(&mut self) -> Seen {
        let seen = super::within("the pod sees something", self.seen.recv()).await;
        seen.expect("the pod lives")
    }

    /// Waits for a request.
    pub(crate) async fn request(&mut self) -> Vec<u8> {
        match self.sees().await {
            Seen::Request(body) => body,
            Seen::Closed => panic!("the gateway closed instead of asking"),
        }
    }

    /// How many requests came that the test has not looked at.
    pub(crate) fn unseen(&mut self) -> usize {
        let mut requests = 0;
        while let Ok(seen) = self.seen.try_recv() {
            requests += usize::from(matches!(seen, Seen::Request(_)));
        }
        requests
    }
}

// === impl Script ===

impl Script {
    fn saw(&self, seen: Seen) {
        // An error means that the test is over.
        self.tell.send(seen).unwrap_or_default();
    }

    fn is_deaf(&self) -> bool {
        self.replies.lock().front().is_some_and(|reply| reply.then == Then::Deaf)
    }

    fn next(&self) -> Reply {
        let mut replies = self.replies.lock();
        let reply = if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() };
        reply.expect("a test gives at least one reply")
    }
}

async fn serve(listener: TcpListener, script: Arc<Script>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.expect("it listens");
        connections.spawn(connection(socket, Arc::clone(&script)));
    }
}

async fn connection(mut socket: TcpStream, script: Arc<Script>) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some((head, length)) = read_head(&mut socket, &mut buffer).await? {
        let path = head.split(' ').nth(1).unwrap_or_default();
        if head.starts_with("GET ") && is_probe(path) {
            socket.write_all(&whole("200 OK", models())).await?;
            continue;
        }
        if script.is_deaf() {
            return std::future::pending().await;
        }
        let Some(body) = read_body(&mut socket, &mut buffer, length).await? else { return Ok(()) };
        script.saw(Seen::Request(body));
        let reply = script.next();
        // A failure to write is a gateway that has closed.
        if socket.write_all(&reply.bytes).await.is_ok() {
            match reply.then {
                Then::Next => continue,
                Then::Close => return Ok(()),
                Then::Reset => return socket.set_zero_linger(),
                Then::ResetLate => {
                    sleep(Duration::from_millis(100)).await;
                    return socket.set_zero_linger();
                }
                Then::Hold if hold(&mut socket, &script.release).await => {
                    let end = stream(&["[DONE]"]);
                    let at = memchr::memmem::find(&end, b"\r\n\r\n").expect("a head") + 4;
                    socket.write_all(&[&end[at..], LAST_CHUNK].concat()).await?;
                    return Ok(());
                }
                Then::Hold => {}
                Then::Flood => flood(&mut socket).await,
                Then::Drip => drip(&mut socket).await,
                Then::Deaf => {}
            }
        }
        script.saw(Seen::Closed);
        return Ok(());
    }
    Ok(())
}

/// Says whether it was released before the gateway closed.
async fn hold(socket: &mut TcpStream, release: &Notify) -> bool {
    let closed = async { while socket.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {} };
    tokio::select! {
        () = closed => false,
        () = release.notified() => true,
    }
}

async fn flood(socket: &mut TcpStream) {
    let event = format!("data: {}\n\n", "x".repeat(16 << 10));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    while socket.write_all(chunk.as_bytes()).await.is_ok() {}
}

async fn drip(socket: &mut TcpStream) {
    let mut ticks = interval(Duration::from_millis(10));
    while socket.write_all(b"a").await.is_ok() {
        ticks.tick().await;
    }
}

/// A head as text, and the length of the body.
async fn read_head(
    socket: &mut TcpStream,
    buffer: &mut BytesMut,
) -> io::Result<Option<(String, usize)>> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head =
        String::from_utf8_lossy(&buffer.split_to(end)).to_lowercase().replace("get /", "GET /");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
    Ok(Some((head, length)))
}

async fn read_body(
    socket: &mut TcpStream,
    buffer: &mut BytesMut,
    length: usize,
) -> io::Result<Option<Vec<u8>>> {
    while buffer.len() < length {
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(buffer.split_to(length).to_vec()))
}
