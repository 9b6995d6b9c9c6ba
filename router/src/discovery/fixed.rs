//! Pods from a configured list of addresses.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Url;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Herald, PoolEnded, Sighting};
use crate::pod::{Pod, Role};

/// A pod by address: `http://host:port`, `host:port`, or `{url: …, role: both|prefill|decode,
/// topology: …}`.
///
/// A host name stands for all the addresses that it resolves to, and is resolved again from time to
/// time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Written")]
pub struct StaticEndpoint {
    /// Name or address.
    host: String,
    /// TCP port of the OpenAI API.
    port: u16,
    /// What the pod is for.
    role: Role,
    /// Where it stands.
    topology: Option<Arc<str>>,
}

/// Why an address cannot be a pod's.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is not a URL.
    #[error("`{text}` is not an address such as `http://10.0.0.7:8000`: {reason}")]
    NotUrl {
        /// What was written.
        text: String,
        /// What the parser says.
        reason: String,
    },
    /// TLS towards pods is not spoken.
    #[error("`{0}`: pods are reached by plain `http://` only")]
    NotHttp(String),
    /// A path, query or user was given.
    #[error("`{0}`: only host and port belong here; the API's paths are known")]
    MoreThanHost(String),
}

/// The long form.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    url: String,
    #[serde(default)]
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topology: Option<String>,
}

// === impl StaticEndpoint ===

impl StaticEndpoint {
    /// The same pod with another role.
    #[must_use]
    pub fn with_role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// The same pod at this place.
    #[must_use]
    pub fn with_topology(mut self, topology: Option<&str>) -> Self {
        self.topology = topology.map(Arc::from);
        self
    }

    /// What the pod is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = self.host.parse() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let found = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addrs = one_family(answered(&self.host, found).await?);
        if addrs.is_empty() { Err(format!("`{}` has no address", self.host)) } else { Ok(addrs) }
    }

    fn pod(&self, addr: SocketAddr) -> Pod {
        Pod {
            uid: format!("static/{addr}").into(),
            name: addr.to_string().into(),
            addr,
            role: self.role,
            topology: self.topology.clone(),
            kv_ports: None,
            rank: None,
        }
    }
}

impl From<SocketAddr> for StaticEndpoint {
    fn from(addr: SocketAddr) -> Self {
        let host = addr.ip().to_string();
        Self { host, port: addr.port(), role: Role::default(), topology: None }
    }
}

impl FromStr for StaticEndpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&full).map_err(|error| AddressError::NotUrl {
            text: text.to_owned(),
            reason: error.to_string(),
        })?;
        if url.scheme() != "http" {
            return Err(AddressError::NotHttp(text.to_owned()));
        }
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !bare || !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::MoreThanHost(text.to_owned()));
        }
        let (host, port) = (url.host_str(), url.port_or_known_default());
        let (Some(host), Some(port)) = (host, port) else {
            let reason = "it names no host".to_owned();
            return Err(AddressError::NotUrl { text: text.to_owned(), reason });
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, role: Role::default(), topology: None })
    }
}

/// Its address as a URL, without the role.
impl fmt::Display for StaticEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl From<StaticEndpoint> for Written {
    fn from(endpoint: StaticEndpoint) -> Self {
        let topology = endpoint.topology.as_deref().map(str::to_owned);
        Self { url: endpoint.to_string(), role: endpoint.role, topology }
    }
}

impl<'de> Deserialize<'de> for StaticEndpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Says which of the two forms is wrong; an untagged enum only says that none matched.
        struct EitherForm;
        impl<'de> Visitor<'de> for EitherForm {
            type Value = StaticEndpoint;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`http://host:port` or `{url: http://host:port, role: both}`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StaticEndpoint, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StaticEndpoint, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                let endpoint: StaticEndpoint = written.url.parse().map_err(A::Error::custom)?;
                Ok(endpoint.with_role(written.role).with_topology(written.topology.as_deref()))
            }
        }
        deserializer.deserialize_any(EitherForm)
    }
}

impl JsonSchema for StaticEndpoint {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StaticEndpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let role = generator.subschema_for::<Role>();
        json_schema!({
            "description": "`http://host:port`, or `{url: http://host:port, role: both|prefill|decode, topology: NAME}`.",
            "oneOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "url": { "type": "string" },
                        "role": role,
                        "topology": { "type": "string" },
                    },
                    "required": ["url"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// How long a name server may take: all pods of the list wait for the slowest of their names, and a
/// resolver that hears nothing goes on asking for half a minute.
const LOOKUP: Duration = Duration::from_secs(5);

/// What a lookup found, if it does in time.
async fn answered<T>(
    host: &str,
    lookup: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    let found = tokio::time::timeout(LOOKUP, lookup).await;
    let found =
        found.map_err(|_elapsed| format!("cannot resolve `{host}`: no answer in {LOOKUP:?}"));
    found?.map_err(|error| format!("cannot resolve `{host}`: {error}"))
}

/// What each entry resolved to last.
type Resolved = BTreeMap<usize, Vec<SocketAddr>>;

/// Tells the whole list every so often, with names resolved anew.
pub(super) async fn run(endpoints: Vec<StaticEndpoint>, every: Duration, herald: Herald) {
    let mut resolved = Resolved::new();
    loop {
        if tell(&endpoints, &mut resolved, &herald).await.is_err() {
            return;
        }
        tokio::time::sleep(every).await;
    }
}

async fn tell(
    endpoints: &[StaticEndpoint],
    resolved: &mut Resolved,
    herald: &Herald,
) -> Result<(), PoolEnded> {
    let found = join_all(endpoints.iter().map(StaticEndpoint::resolve)).await;
    let mut failure = None;
    for (position, found) in found.into_iter().enumerate() {
        match found {
            Ok(addrs) => {
                resolved.insert(position, addrs);
            }
            // Its last addresses stay: a name server away is no reason to drop pods.
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        None => herald.desired(sightings(endpoints, resolved)).await,
        // An empty set would be a claim that there are no pods.
        Some(error) if resolved.is_empty() => herald.lost(error).await,
        Some(error) => herald.partly(sightings(endpoints, resolved), error).await,
    }
}

/// A name with both families names the same pods twice: IPv4 is taken then.
fn one_family(addrs: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addrs: Vec<_> = addrs.collect();
    if addrs.iter().any(SocketAddr::is_ipv4) {
        addrs.retain(SocketAddr::is_ipv4);
    }
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// The first entry that names an address decides its role.
fn sightings(endpoints: &[StaticEndpoint], resolved: &Resolved) -> Vec<Sighting> {
    let mut pods = BTreeMap::new();
    for (position, addrs) in resolved {
        for &addr in addrs {
            pods.entry(addr).or_insert_with(|| endpoints[*position].pod(addr));
        }
    }
    pods.into_values().map(|pod| Sighting { pod, serving: true, grace: None }).collect()
}
