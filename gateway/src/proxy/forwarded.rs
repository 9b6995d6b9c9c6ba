//! What a pod is told of a request beyond what the client said: its id, its session, where it came from.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, header};
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_proxy::Session;

use super::Gateway;
use crate::request::account::{Account, Field};
use crate::request::headers::last_hop;

impl Gateway {
    /// The fields that tell it.
    pub(super) fn told_to_pod(&self, session: &Session, account: &Account) -> Vec<Field> {
        let mut fields = account.told_to_pods();
        self.forwarded(session, &mut fields);
        fields
    }

    /// The client's address: what the proxy in front says, if it is believed, else what we see.
    pub(super) fn client_address(&self, session: &Session) -> Option<IpAddr> {
        let headers = &session.req_header().headers;
        let told = last_hop(headers).filter(|_| self.config.forwarded.trust_addresses);
        told.or_else(|| Some(session.client_addr()?.as_inet()?.ip()))
    }

    /// Where the request came from: what a proxy in front says, if it is believed, else what we see.
    fn forwarded(&self, session: &Session, fields: &mut Vec<Field>) {
        let headers = &session.req_header().headers;
        let trusted = |name: &str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.filter(|_| self.config.forwarded.trust_addresses).map(str::to_owned)
        };
        let inet = |addr: &SocketAddr| addr.as_inet().map(|addr| addr.ip().to_string());
        let hops = [trusted("x-forwarded-for"), session.client_addr().and_then(inet)];
        let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let proto = trusted("x-forwarded-proto")
            .map_or_else(|| Bytes::from(if is_tls { "https" } else { "http" }), Bytes::from);
        let host = trusted("x-forwarded-host").or_else(|| {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let authority = session.req_header().uri.authority().map(|it| it.as_str());
            host.or(authority).map(str::to_owned)
        });
        let hops = hops.into_iter().flatten().collect::<Vec<_>>().join(", ");
        fields.push((HeaderName::from_static("x-forwarded-for"), hops.into()));
        fields.push((HeaderName::from_static("x-forwarded-proto"), proto));
        fields.push((HeaderName::from_static("x-forwarded-host"), host.unwrap_or_default().into()));
    }
}
