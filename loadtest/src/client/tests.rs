use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
    x-upstream-host: 10.0.0.1:8000\r\nx-hearth-decision: warm;matched=16\r\n\
    connection: close\r\n\r\n";

/// Sends one streamed chat to a server that answers with these bytes and closes.
async fn answered_with(bytes: String) -> Answer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = async {
        let (mut socket, _peer) = listener.accept().await.expect("the client connects");
        let mut request = Vec::new();
        // The body's last byte is the only `}` that nothing follows.
        while !request.ends_with(b"}") {
            assert_ne!(socket.read_buf(&mut request).await.expect("a request"), 0);
        }
        socket.write_all(bytes.as_bytes()).await.expect("the client reads");
        socket.shutdown().await.expect("the client is still there");
    };
    let client = Client::new(&url, None).expect("a good URL");
    let options = CallOptions { stream: true, max_tokens: 4, ..CallOptions::default() };
    let call = Call::chat("tiny", &[Message::user("hi")], &options);
    let (answer, ()) = tokio::join!(client.send(&call, LONG), server);
    answer
}

#[tokio::test]
async fn a_complete_stream_tells_text_tokens_and_upstream() {
    let answer = answered_with(format!(
        "{EVENTS}data: {{\"choices\":[{{\"delta\":{{\"content\":\"hi\"}}}}]}}\n\n\
         data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":17,\"completion_tokens\":1,\
         \"prompt_tokens_details\":{{\"cached_tokens\":16}}}}}}\n\ndata: [DONE]\n\n"
    ))
    .await;
    assert_eq!(answer.failure, None);
    assert_eq!((answer.text.as_str(), answer.upstream()), ("hi", Some("10.0.0.1:8000")));
    assert_eq!(answer.decision(), Some("warm;matched=16"));
    assert_eq!(answer.usage.and_then(|usage| usage.cached_tokens), Some(16));
    assert!(answer.timing.ttft.expect("a token came") <= answer.timing.total);
}

#[tokio::test]
async fn a_stream_that_ends_without_done_is_truncated() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
    let answer = answered_with(format!("{EVENTS}{body}")).await;
    assert_eq!(answer.failure, Some(Failure::Truncated));
    assert_eq!(answer.text, "hi", "what came is kept");
}

#[tokio::test]
async fn a_body_cut_before_its_length_is_a_lost_connection() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    let answer = answered_with(head.into()).await;
    assert_eq!(answer.failure.map(|failure| failure.kind()).as_deref(), Some("reset"));
}

#[tokio::test]
async fn a_refusal_keeps_status_and_message() {
    let body = r#"{"error":{"message":"busy","type":"x","param":null,"code":503}}"#;
    let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json";
    let length = body.len();
    let answer = answered_with(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    let failure = answer.failure.expect("503 is a failure");
    assert_eq!(failure.kind(), "http_503");
    assert_eq!(failure.to_string(), "HTTP 503 Service Unavailable: busy");
}

#[tokio::test]
async fn nobody_listening_is_a_failure_to_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let client = Client::new(&url, None).expect("a good URL");
    let call = Call::completion("tiny", "hi", &CallOptions::default());
    let failure = client.send(&call, LONG).await.failure.expect("nobody answers");
    assert_eq!(failure.kind(), "connect");
}

#[test]
fn a_url_without_http_is_refused_in_a_sentence() {
    let refused = Client::new("ftp://x", None).expect_err("not HTTP").to_string();
    assert_eq!(refused, "`ftp://x` is not an http:// or https:// URL: its scheme is `ftp`");
    assert!(Client::new("127.0.0.1:8080", None).is_err());
}
