//! Peers that do what no library does. What libraries do is in `tests/kv_events.rs`.

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// A connection to a peer that sends these bytes and no more, and the peer's end of it.
async fn against(bytes: &[u8], role: Role) -> Result<(Connection, TcpStream), ZmtpError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    let ours = TcpStream::connect(addr).await.expect("it listens");
    let (mut theirs, _) = listener.accept().await.expect("it connects");
    theirs.write_all(bytes).await.expect("it reads");
    theirs.shutdown().await.expect("it is open");
    // Closing with bytes unread would reset the connection: the caller keeps the end.
    Connection::open(ours, role).await.map(|connection| (connection, theirs))
}

/// Greeting and READY of a socket of this type, and then something.
fn peer(kind: &str, then: &[u8]) -> Vec<u8> {
    let mut body = b"\x05READY\x08Identity\0\0\0\0\x0bSocket-Type".to_vec();
    body.extend(u32::try_from(kind.len()).expect("short").to_be_bytes());
    body.extend(kind.as_bytes());
    let mut bytes = greeting().to_vec();
    put_frame(&mut bytes, COMMAND, &body);
    bytes.extend(then);
    bytes
}

/// The first message of a publisher that sends these bytes after the handshake.
async fn first(then: &[u8]) -> Result<Vec<Bytes>, ZmtpError> {
    let (mut connection, _theirs) = against(&peer("PUB", then), Role::Subscriber).await?;
    connection.recv().await
}

#[tokio::test]
async fn a_message_is_all_its_frames() {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, MORE, b"topic");
    put_frame(&mut bytes, MORE, b"");
    put_frame(&mut bytes, 0, &[7; 300]);
    let message = first(&bytes).await.expect("it is whole");
    assert_eq!(message, [&b"topic"[..], b"", &[7; 300]]);
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_asked_by_the_kernel_whoever_dialled() {
    let (connection, _theirs) = against(&peer("PUB", b""), Role::Subscriber).await.expect("a peer");
    let socket = SockRef::from(&connection.stream);
    assert!(socket.keepalive().expect("it is open"));
    assert_eq!(socket.tcp_keepalive_time().expect("it is open"), KEEPALIVE.0);
}

#[tokio::test]
async fn commands_between_messages_are_passed_over() {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, COMMAND, b"\x04PING\0\0");
    put_frame(&mut bytes, 0, b"x");
    assert_eq!(first(&bytes).await.expect("it is whole"), [&b"x"[..]]);
}

#[tokio::test]
async fn a_declared_length_beyond_the_limit_ends_the_connection_at_once() {
    for len in [MESSAGE_LIMIT as u64 + 1, u64::MAX, 1 << 62] {
        let mut bytes = vec![LONG];
        bytes.extend(len.to_be_bytes());
        assert!(matches!(first(&bytes).await, Err(ZmtpError::TooLong)), "{len}");
    }
}

#[tokio::test]
async fn many_frames_are_bounded_like_one() {
    let mut frame = Vec::new();
    put_frame(&mut frame, MORE, &vec![0; MESSAGE_LIMIT / 2]);
    let frames = [&frame[..], &frame, &frame].concat();
    let (mut connection, _sender) = over_a_pipe(peer("PUB", &frames)).await;
    assert!(matches!(connection.recv().await, Err(ZmtpError::TooLong)));
}

/// The same for more bytes than a socket's buffers hold.
async fn over_a_pipe(bytes: Vec<u8>) -> (Connection, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let addr = listener.local_addr().expect("it is bound");
    let ours = TcpStream::connect(addr).await.expect("it listens");
    let (mut theirs, _) = listener.accept().await.expect("it connects");
    let mut sender = JoinSet::new();
    sender.spawn(async move {
        // An error is us, who refuse to read on.
        drop(theirs.write_all(&bytes).await);
        drop(theirs.read_to_end(&mut Vec::new()).await);
    });
    let connection = Connection::open(ours, Role::Subscriber).await.expect("it is a publisher");
    (connection, sender)
}

#[tokio::test]
async fn a_frame_that_is_cut_is_no_message() {
    for cut in [&b""[..], b"\x00", b"\x00\x05ab", &[LONG, 0, 0, 0]] {
        assert!(matches!(first(cut).await, Err(ZmtpError::Closed)), "{cut:?}");
    }
}

#[tokio::test]
async fn who_does_not_speak_zmtp_or_not_to_us_is_refused() {
    let mut secured = greeting();
    secured[12..17].copy_from_slice(b"CURVE");
    let mut old = greeting();
    old[10] = 2;
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n012345678901234567890123456789012345"[..],
        &secured,
        &old,
    ] {
        let opened = against(bytes, Role::Subscriber).await;
        assert!(matches!(opened, Err(ZmtpError::Greeting)), "{opened:?}");
    }
    for (kind, role) in [("SUB", Role::Subscriber), ("PUB", Role::Dealer)] {
        let opened = against(&peer(kind, b""), role).await;
        assert!(matches!(opened, Err(ZmtpError::SocketType(found)) if found == kind));
    }
    let mut no_ready = greeting().to_vec();
    put_frame(&mut no_ready, COMMAND, b"\x05HELLO");
    let opened = against(&no_ready, Role::Subscriber).await;
    assert!(matches!(opened, Err(ZmtpError::Command)), "{opened:?}");
    let opened = against(b"\xff", Role::Subscriber).await;
    assert!(matches!(opened, Err(ZmtpError::Closed)), "{opened:?}");
}
