use std::os::unix::fs::symlink;

use prometheus::Registry;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::*;

/// A self-signed certificate that expires on the first of January of a year.
struct Made {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

/// A folder with a certificate as Kubernetes mounts a Secret: `..data` links to a folder of its own
/// for each version, and the files link through it.
struct Mount {
    folder: TempDir,
    versions: u32,
}

fn make(year: i32) -> Made {
    let key = KeyPair::generate().expect("there is randomness");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a fine name");
    params.not_after = date_time_ymd(year, 1, 1);
    let cert = params.self_signed(&key).expect("it can sign");
    Made { cert: cert.pem(), key: key.serialize_pem(), der: cert.der().clone() }
}

impl Mount {
    fn new(cert: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        for file in ["tls.crt", "tls.key"] {
            let link = folder.path().join(file);
            symlink(Path::new("..data").join(file), link).expect("it can link");
        }
        let mut mount = Self { folder, versions: 0 };
        mount.swap(cert, key);
        mount
    }

    fn swap(&mut self, cert: &str, key: &str) {
        self.versions += 1;
        let version = format!("..{}", self.versions);
        let path = |name: &str| self.folder.path().join(name);
        fs::create_dir(path(&version)).expect("there is room");
        fs::write(path(&version).join("tls.crt"), cert).expect("there is room");
        fs::write(path(&version).join("tls.key"), key).expect("there is room");
        symlink(&version, path("..new")).expect("it can link");
        fs::rename(path("..new"), path("..data")).expect("it can rename");
    }

    fn open(&self, metrics: &Metrics) -> Result<Reloader, TlsError> {
        let path = |name: &str| self.folder.path().join(name);
        Reloader::open(&path("tls.crt"), &path("tls.key"), metrics.clone())
    }
}

fn metrics() -> (Registry, Metrics) {
    let registry = Registry::new();
    let metrics = Metrics::new(&registry).expect("no name twice");
    (registry, metrics)
}

fn expiry(registry: &Registry) -> f64 {
    let families = registry.gather();
    let name = "hearth_tls_certificate_expiry_seconds";
    let family = families.iter().find(|it| it.name() == name).expect("it is shown");
    family.get_metric()[0].get_gauge().get_value()
}

/// The certificate that a client gets which trusts `trusted`, over a handshake in memory.
fn handshake(
    certificate: &Arc<Certificate>,
    trusted: &Made,
) -> Result<CertificateDer<'static>, rustls::Error> {
    let provider = || Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone())?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate.clone());
    let name = ServerName::try_from("localhost").expect("a fine name");
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("a vector takes everything");
        server.read_tls(&mut wire.as_slice()).expect("it takes a flight");
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("a vector takes everything");
        client.read_tls(&mut wire.as_slice()).expect("it takes a flight");
        client.process_new_packets()?;
    }
    let chain = client.peer_certificates().expect("a handshake gives one");
    Ok(chain[0].clone().into_owned())
}

#[test]
fn a_client_sees_the_new_certificate_after_a_swap() {
    let (registry, metrics) = metrics();
    let (old, new) = (make(2031), make(2032));
    let mut mount = Mount::new(&old.cert, &old.key);
    let mut reloader = mount.open(&metrics).expect("it is a pair");
    let certificate = reloader.certificate();
    assert_eq!(handshake(&certificate, &old), Ok(old.der.clone()));
    let before = expiry(&registry);
    assert!(matches!(reloader.look(), Look::Unchanged));
    mount.swap(&new.cert, &new.key);
    assert!(matches!(reloader.look(), Look::Replaced));
    assert_eq!(handshake(&certificate, &new), Ok(new.der.clone()));
    assert!(handshake(&certificate, &old).is_err(), "the old one is gone");
    assert!((expiry(&registry) - before - 365.0 * 86400.0).abs() < 1.0, "a year later");
}

#[test]
fn what_cannot_be_used_leaves_the_old_certificate_and_is_told_once() {
    let (_, metrics) = metrics();
    let (old, new) = (make(2031), make(2032));
    let mut mount = Mount::new(&old.cert, &old.key);
    let mut reloader = mount.open(&metrics).expect("it is a pair");
    let certificate = reloader.certificate();
    let bad = [
        (new.cert.as_str(), old.key.as_str()),
        ("", new.key.as_str()),
        (new.cert.as_str(), "not a key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", new.key.as_str()),
    ];
    for (count, (cert, key)) in (1..).zip(bad) {
        mount.swap(cert, key);
        assert!(matches!(reloader.look(), Look::Refused(_)), "bad pair {count}");
        assert!(matches!(reloader.look(), Look::Unchanged));
        assert_eq!(metrics.certificate_reload_failures.get(), count);
        assert_eq!(handshake(&certificate, &old), Ok(old.der.clone()));
    }
    fs::remove_file(mount.folder.path().join("..data")).expect("it is there");
    assert!(matches!(reloader.look(), Look::Refused(TlsError::Read { .. })));
    assert!(matches!(reloader.look(), Look::Unchanged));
    mount.swap(&new.cert, &new.key);
    assert!(matches!(reloader.look(), Look::Replaced), "a good pair mends it");
    assert_eq!(handshake(&certificate, &new), Ok(new.der));
}

#[test]
fn a_pair_that_does_not_fit_stops_the_start() {
    let (_, metrics) = metrics();
    let (one, other) = (make(2031), make(2031));
    let error = Mount::new(&one.cert, &other.key).open(&metrics).expect_err("not a pair");
    assert!(matches!(error, TlsError::Pair(_)), "{error}");
    let error = Reloader::open(Path::new("none.pem"), Path::new("none.pem"), metrics);
    assert!(error.expect_err("no file").to_string().starts_with("tls.cert: none.pem: "));
}

#[test]
fn the_listener_offers_http_2() {
    let (_, metrics) = metrics();
    let pair = make(2031);
    let reloader = Mount::new(&pair.cert, &pair.key).open(&metrics).expect("it is a pair");
    let settings = reloader.certificate().settings().expect("nothing to fail");
    let acceptor = settings.build();
    assert_eq!(acceptor.acceptor.config().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}
