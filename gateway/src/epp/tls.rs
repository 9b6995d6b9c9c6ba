//! TLS of the gRPC listener.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::tls::Certificate;

/// Why there is no certificate that nobody can verify.
#[derive(Debug, thiserror::Error)]
pub enum SelfSignedError {
    /// It cannot be made.
    #[error(transparent)]
    Made(#[from] rcgen::Error),
    /// It cannot be used.
    #[error(transparent)]
    Used(#[from] rustls::Error),
}

/// With a certificate that is made now.
///
/// # Errors
/// None in practice: nothing is read.
pub(crate) fn self_signed() -> Result<ServerConfig, SelfSignedError> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth();
    Ok(http2(config.with_single_cert(vec![cert.into()], key)?))
}

/// With a certificate that follows its files.
#[must_use]
pub(crate) fn of_files(certificate: Arc<Certificate>) -> ServerConfig {
    http2(ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificate))
}

fn http2(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
