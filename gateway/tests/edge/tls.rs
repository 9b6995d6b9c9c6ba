//! TLS: HTTP/1.1 and HTTP/2 by ALPN, and a certificate that is replaced while the gateway runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use gateway::app::App;
use gateway::config::{Config, Loaded};
use gateway::epp::EppTls;
use gateway::telemetry::LogLevel;
use http::{Request, StatusCode, Version};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::Reply;
use crate::support::echo::Echo;
use crate::support::wire::{Wire, post};
use crate::support::{House, config, ms, within};

const BODY: &str = r#"{"model":"tiny","prompt":"a"}"#;

/// Writes a new certificate and its key.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("there is randomness");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a fine name");
    let cert = params.self_signed(&key).expect("it can sign");
    for (file, text) in [("tls.crt", cert.pem()), ("tls.key", key.serialize_pem())] {
        std::fs::write(folder.join(file), text).expect("there is room");
    }
    cert.der().clone()
}

fn tls_config(folder: &TempDir, echo: &Echo) -> Config {
    let mut config = config(&[echo.addr]);
    config.tls.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    config.tls.cert = Some(folder.path().join("tls.crt"));
    config.tls.key = Some(folder.path().join("tls.key"));
    config.tls.reload_interval = ms(10);
    config
}

async fn start(folder: &TempDir, echo: &Echo) -> (House, SocketAddr) {
    let house = House::start(tls_config(folder, echo)).await;
    let addr = house.app.tls_addr.expect("it listens");
    (house, addr)
}

/// A handshake with a client that trusts only this certificate.
async fn connect(
    addr: SocketAddr,
    trusted: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    let socket = TcpStream::connect(addr).await.expect("it listens");
    let shaken = TlsConnector::from(Arc::new(config)).connect(name, socket);
    within("a handshake", shaken).await
}

#[tokio::test]
async fn an_envoys_listener_has_the_same_certificate_or_one_that_nobody_can_verify() {
    let (folder, echo) = (tempfile::tempdir().expect("there is room"), Echo::start().await);
    let trusted = certificate(folder.path());
    for (tls, is_trusted) in [(EppTls::Files, true), (EppTls::SelfSigned, false)] {
        let mut config = tls_config(&folder, &echo);
        config.epp.listen = (Ipv4Addr::LOCALHOST, 0).into();
        config.epp.tls = tls;
        let loaded = Loaded { hash: config.hash(), config, origins: BTreeMap::new() };
        let app = App::start_epp(loaded, LogLevel::default()).await.expect("a certificate");
        let stream = connect(app.addr, &trusted, &["h2"]).await;
        assert_eq!(stream.is_ok(), is_trusted, "{tls:?}");
        if let Ok(stream) = stream {
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        }
        app.stop().await.expect("no task panicked");
    }
}

fn request(version: Version) -> Request<Full<bytes::Bytes>> {
    Request::post("https://localhost/v1/completions")
        .version(version)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::from(BODY))
        .expect("a valid request")
}

#[tokio::test]
async fn the_protocol_is_agreed_on_and_both_carry_bodies() {
    let (folder, echo) = (tempfile::tempdir().expect("there is room"), Echo::start().await);
    let trusted = certificate(folder.path());
    let (house, addr) = start(&folder, &echo).await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = connect(addr, &trusted, offered).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed, "{offered:?}");
        let io = TokioIo::new(stream);
        let (response, connection) = if agreed == Some(b"h2") {
            let (mut send, connection) =
                http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            let task = tokio::spawn(async move { drop(connection.await) });
            (send.send_request(request(Version::HTTP_2)).await, task)
        } else {
            let (mut send, connection) = http1::handshake(io).await.expect("HTTP/1.1");
            let task = tokio::spawn(async move { drop(connection.await) });
            (send.send_request(request(Version::HTTP_11)).await, task)
        };
        let reply = Reply::of(response.expect("an answer")).await;
        assert_eq!((reply.status, reply.text()), (StatusCode::OK, BODY), "{offered:?}");
        assert_eq!(reply.header("x-upstream-host"), echo.addr.to_string());
        connection.abort();
    }
    house.end().await;
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    let (folder, echo) = (tempfile::tempdir().expect("there is room"), Echo::start().await);
    let old = certificate(folder.path());
    let (house, addr) = start(&folder, &echo).await;
    assert!(connect(addr, &old, &[]).await.is_ok());
    let new = certificate(folder.path());
    let replaced = async { while connect(addr, &new, &[]).await.is_err() {} };
    within("the new certificate", replaced).await;
    assert!(connect(addr, &old, &[]).await.is_err(), "the old one is not shown any more");

    std::fs::write(folder.path().join("tls.crt"), "nonsense").expect("there is room");
    let failures = "hearth_tls_certificate_reload_failures_total";
    within("it is read", async { while house.metric(failures).await < 1 {} }).await;
    assert!(connect(addr, &new, &[]).await.is_ok(), "the last good one stays");
    house.end().await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_and_tls_on_the_plain_port_get_nowhere() {
    let (folder, echo) = (tempfile::tempdir().expect("there is room"), Echo::start().await);
    let trusted = certificate(folder.path());
    let (house, addr) = start(&folder, &echo).await;
    let mut wire = Wire::connect(addr).await;
    wire.send(&post("/v1/completions", BODY)).await;
    assert!(wire.answer().await.is_none());
    // A handshake has no end that a head would have: it is refused when its time is over, or at
    // once if it looks like nothing that HTTP has.
    assert!(connect(house.addr, &trusted, &["h2"]).await.is_err());
    assert_eq!(echo.requests(), 0);
    assert_eq!(house.metric("hearth_tls_handshakes_failed_total").await, 1);
    house.end().await;
}

#[tokio::test]
async fn a_handshake_has_no_more_time_than_a_head() {
    let (folder, echo) = (tempfile::tempdir().expect("there is room"), Echo::start().await);
    certificate(folder.path());
    let mut config = tls_config(&folder, &echo);
    config.deadlines.request_head = ms(100);
    let house = House::start(config).await;
    let mut silent = Wire::connect(house.app.tls_addr.expect("it listens")).await;
    assert!(silent.is_ended().await, "within the patience of this test, which is below Pingora's");
    assert_eq!(house.metric("hearth_tls_handshakes_failed_total").await, 1);
    house.end().await;
}
