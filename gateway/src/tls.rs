//! The certificate of the TLS listener, replaced without a restart when its files change.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::listeners::tls::TlsSettings;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};

use crate::telemetry::Metrics;

/// The settings that name the files.
const CERT: &str = "tls.cert";
const KEY: &str = "tls.key";

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: {}: {source}", file.display())]
    Read {
        /// Its setting.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM, or does not hold what it should.
    #[error("{key}: {}: {source}", file.display())]
    Pem {
        /// Its setting.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{CERT}: {}: no certificate in it", .0.display())]
    Empty(PathBuf),
    /// The key is of no known kind, or not that of the certificate.
    #[error("{CERT} and {KEY}: {0}")]
    Pair(#[from] rustls::Error),
    /// The certificate is not X.509.
    #[error("{CERT}: {0}")]
    X509(#[from] x509_parser::error::X509Error),
}

/// The certificate that handshakes use now.
#[derive(Debug)]
pub struct Certificate(ArcSwap<CertifiedKey>);

/// Reads the files again and again. Their content is compared, not their times: Kubernetes swaps a
/// symbolic link two folders up.
#[derive(Debug)]
pub struct Reloader {
    files: Files,
    seen: Result<Pem, String>,
    certificate: Arc<Certificate>,
    metrics: Metrics,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Look {
    /// What was there before, good or bad.
    Unchanged,
    /// A new certificate, now in use.
    Replaced,
    /// Something new that cannot be used; the old certificate stays.
    Refused(TlsError),
}

/// Where certificate and key are.
#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// The content of both files.
#[derive(Clone, PartialEq, Eq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate with its key, and when it expires in seconds since 1970.
struct Usable {
    key: CertifiedKey,
    expires: i64,
}

// === impl Certificate ===

impl Certificate {
    /// Settings for a listener of Pingora that uses this certificate, with HTTP/2 by ALPN.
    ///
    /// # Errors
    /// None in practice: no file is read here.
    pub fn settings(self: &Arc<Self>) -> pingora_core::Result<TlsSettings> {
        // With a resolver, the two paths are not looked at.
        let mut settings = TlsSettings::intermediate("", "")?;
        settings.set_cert_resolver(self.clone());
        settings.enable_h2();
        Ok(settings)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

// === impl Reloader ===

impl Reloader {
    /// Reads both files for the first time.
    ///
    /// # Errors
    /// They cannot be read, or do not go together.
    pub fn open(cert: &Path, key: &Path, metrics: Metrics) -> Result<Self, TlsError> {
        let files = Files { cert: cert.to_owned(), key: key.to_owned() };
        let pem = files.read()?;
        let usable = files.usable(&pem)?;
        metrics.certificate_expires(usable.expires);
        let certificate = Arc::new(Certificate(ArcSwap::from_pointee(usable.key)));
        Ok(Self { files, seen: Ok(pem), certificate, metrics })
    }

    /// The certificate that handshakes use; it follows the files as they are looked at.
    #[must_use]
    pub fn certificate(&self) -> Arc<Certificate> {
        self.certificate.clone()
    }

    /// Looks at the files once. A failure is told once, not at every look.
    pub fn look(&mut self) -> Look {
        let read = self.files.read();
        let seen = read.as_ref().map(Pem::clone).map_err(ToString::to_string);
        if seen == self.seen {
            return Look::Unchanged;
        }
        self.seen = seen;
        match read.and_then(|pem| self.files.usable(&pem)) {
            Ok(usable) => {
                self.certificate.0.store(Arc::new(usable.key));
                self.metrics.certificate_expires(usable.expires);
                Look::Replaced
            }
            Err(error) => {
                self.metrics.certificate_reload_failures.inc();
                Look::Refused(error)
            }
        }
    }

    /// Looks at the files at every interval and whenever `asked`, until dropped.
    pub async fn run(mut self, every: Duration, asked: Arc<Notify>) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = ticks.tick() => false,
                () = asked.notified() => true,
            };
            let look = self.look();
            let cert = self.files.cert.display();
            match look {
                Look::Unchanged if is_asked => tracing::info!(%cert, "the certificate is the same"),
                Look::Unchanged => {}
                Look::Replaced => tracing::info!(%cert, "new certificate in use"),
                Look::Refused(error) => {
                    tracing::error!(%error, "the new certificate cannot be used; the old one stays");
                }
            }
        }
    }
}

// === impl Files ===

impl Files {
    fn read(&self) -> Result<Pem, TlsError> {
        let read = |key, file: &PathBuf| {
            fs::read(file).map_err(|source| TlsError::Read { key, file: file.clone(), source })
        };
        Ok(Pem { cert: read(CERT, &self.cert)?, key: read(KEY, &self.key)? })
    }

    fn usable(&self, pem: &Pem) -> Result<Usable, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&pem.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem { key: CERT, file: self.cert.clone(), source })?;
        let leaf = chain.first().ok_or_else(|| TlsError::Empty(self.cert.clone()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| TlsError::X509(error.into()))?;
        let expires = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|source| TlsError::Pem {
            key: KEY,
            file: self.key.clone(),
            source,
        })?;
        Ok(Usable { key: CertifiedKey::from_der(chain, key, &default_provider())?, expires })
    }
}

// === impl Pem ===

impl std::fmt::Debug for Pem {
    /// Nothing of it: one half is a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}
