use std::net::Ipv4Addr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use router::pool::Snapshot;

use super::*;
use crate::config::{Config, Setting, keys};
use crate::telemetry::Metrics;
use crate::telemetry::reading::tests::reading;

fn pages() -> Pages {
    let registry = Registry::new();
    Metrics::new(&registry).expect("no name twice");
    let readings = Readings::from_fn(reading);
    let key = keys().iter().find(|key| key.name() == "endpoints").expect("it is a key");
    let flag = Setting { key, text: "http://10.0.0.1:8000".to_owned() };
    let loaded = Arc::new(Config::load(None, [], &[flag]).expect("it is fine"));
    let decisions = Arc::new(Decisions::new(4));
    let pool = Pool::still(Snapshot::default());
    let (drain, log_level) = (Drain::default(), LogLevel::default());
    Pages { readings, pool, log_level, decisions, registry, drain, loaded }
}

async fn start(pages: Pages) -> AdminServer {
    AdminServer::start((Ipv4Addr::LOCALHOST, 0).into(), pages).await.expect("there is a port")
}

/// Status, head and body of an answer.
async fn ask(addr: SocketAddr, path: &str) -> (u16, String, String) {
    send(addr, &format!("GET {path}"), "").await
}

/// The same for a method and a path, with one more field.
async fn send(addr: SocketAddr, what: &str, field: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).await.expect("it listens");
    let request = format!("{what} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{field}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends");
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

#[tokio::test]
async fn every_page_answers() {
    let server = start(pages()).await;
    let addr = server.local_addr();
    assert_eq!(ask(addr, "/healthz").await.0, 200);
    let (status, head, metrics) = ask(addr, "/metrics").await;
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(metrics.contains("hearth_endpoints{state=\"ready\"} 2"), "{metrics}");
    let (status, _, pool) = ask(addr, "/pool").await;
    assert_eq!(status, 200);
    insta::assert_snapshot!(format!("{:#}", json(&pool)));
    let (status, _, config) = ask(addr, "/config").await;
    let config = json(&config);
    assert_eq!(status, 200);
    assert_eq!(config["config"]["endpoints"][0]["url"], "http://10.0.0.1:8000");
    assert_eq!(config["set_by"], json!({ "endpoints": "--endpoints" }));
    assert_eq!(config["hash"].as_str().map(str::len), Some(16));
    let (status, _, contents) = ask(addr, "/nothing").await;
    assert!(status == 404 && contents.contains("/metrics"), "{contents}");
    let (_, head, table) = ask(addr, "/pool?format=text").await;
    assert!(head.contains("content-type: text/plain") && table.starts_with("POD "), "{table}");
    assert_eq!(ask(addr, "/pool?format=xml").await.0, 400);
    for page in ["/metrics", "/healthz", "/readyz", "/pool", "/why", "/config", "/log-level"] {
        assert!(contents.contains(page), "{page} is not in the contents");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn readiness_says_why_not() {
    let server = start(pages()).await;
    let (status, _, body) = ask(server.local_addr(), "/readyz").await;
    assert_eq!(status, 503);
    let said = json(&body);
    assert_eq!(said["ready"], false);
    assert_eq!(said["reasons"], json!(["not_synced"]));
    assert_eq!(said["degraded"][0], "10.0.0.3:8000 is not proven yet: cannot connect: refused");
    let absent = said["degraded"][1].as_str().expect("the tokenizer is not here");
    assert!(absent.contains("hf:owner/tiny") && absent.contains("no route to host"), "{absent}");
    server.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_changed_is_said_and_pages_of_others_change_nothing() {
    let server = start(pages()).await;
    let addr = server.local_addr();
    let (status, _, body) = send(addr, "POST /pool/nobody/cordon", "").await;
    assert_eq!((status, body.as_str()), (404, "no such pod\n"));
    let (status, _, body) = send(addr, "PUT /log-level", "").await;
    assert_eq!(status, 503, "{body}");
    let foreign = "origin: https://a.b\r\n";
    assert_eq!(send(addr, "POST /pool/nobody/cordon", foreign).await.0, 403);
    assert_eq!(send(addr, "GET /pool", foreign).await.0, 200);
    server.shutdown().await;
}

#[tokio::test]
async fn after_the_end_nobody_listens() {
    let server = start(pages()).await;
    let addr = server.local_addr();
    // An idle connection must not hold up the end.
    let idle = TcpStream::connect(addr).await.expect("it listens");
    server.shutdown().await;
    assert!(TcpStream::connect(addr).await.is_err());
    drop(idle);
}
