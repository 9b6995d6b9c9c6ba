//! Some of the pods, by address: whoever sends a request may leave us these to choose from.

use std::net::{IpAddr, SocketAddr};

/// The pods that a request may go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subset(Vec<Named>);

/// A pod by its name: one port of an address, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Named {
    Port(SocketAddr),
    Host(IpAddr),
}

// === impl Subset ===

impl Subset {
    /// The pods of a list like `10.0.0.7:8000,10.0.0.8`. What is no address names no pod.
    #[must_use]
    pub fn of(list: &str) -> Self {
        let named = list.split(',').filter_map(|name| {
            let name = name.trim();
            let port = name.parse().map(Named::Port);
            port.or_else(|_no_port| name.parse().map(Named::Host)).ok()
        });
        Self(named.collect())
    }

    /// Whether it has the pod with this address.
    #[must_use]
    pub fn has(&self, addr: SocketAddr) -> bool {
        self.0.iter().any(|named| match named {
            Named::Port(port) => *port == addr,
            Named::Host(host) => *host == addr.ip(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_ports_and_hosts_and_nothing_by_mistake() {
        let subset = Subset::of("10.0.0.7:8000, 10.0.0.8,[::1]:9,nonsense,");
        let has = |addr: &str| subset.has(addr.parse().unwrap());
        assert!(has("10.0.0.7:8000") && has("10.0.0.8:1") && has("[::1]:9"));
        assert!(!has("10.0.0.7:8001") && !has("10.0.0.9:8000") && !has("[::1]:8"));
        assert!(!Subset::of("").has("10.0.0.7:8000".parse().unwrap()));
    }
}
