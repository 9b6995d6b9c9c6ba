//! Settings of `hearth epp`.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Deciding for an Envoy instead of relaying (`hearth epp`); `serve` looks at none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EppSettings {
    /// Address of the gRPC listener: Envoy's external processing, and health.
    pub listen: SocketAddr,
    /// TLS on it.
    pub tls: EppTls,
    /// Looks into answers where Envoy sends their bodies, and learns from first tokens and `usage`: that
    /// costs a message per chunk. Otherwise an Envoy that sends them and lets itself be told
    /// (`allow_mode_override`) is told not to.
    pub answers: bool,
    /// Further pods named after the chosen one, for proxies that walk the list. A cluster of type
    /// ORIGINAL_DST takes one address only.
    pub fallbacks: u32,
}

/// The certificate of the gRPC listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EppTls {
    /// One that is made at the start and that nobody can verify, as an Endpoint Picker's is.
    #[default]
    SelfSigned,
    /// `tls.cert` and `tls.key`.
    Files,
    /// No TLS.
    Off,
}

// === impl EppSettings ===

impl Default for EppSettings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 9002).into(),
            tls: EppTls::default(),
            answers: false,
            fallbacks: 0,
        }
    }
}
