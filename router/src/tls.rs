//! The process's TLS provider.

/// Makes ring the process's default rustls provider unless one is there already. The HTTP clients
/// of the feeds and of Kubernetes cannot be built without one.
pub fn install_provider() {
    use rustls::crypto::{CryptoProvider, ring};
    if CryptoProvider::get_default().is_none()
        && ring::default_provider().install_default().is_err()
    {
        tracing::debug!("another thread installed the TLS provider first");
    }
}
