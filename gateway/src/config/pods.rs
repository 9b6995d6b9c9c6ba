//! The sections that say where the pods are.

use std::borrow::Cow;
use std::fmt;

use router::pool::Role;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A pod named by hand: its URL, or its URL and role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://host:port`. Each address of a host name is a pod.
    pub url: String,
    /// What the pod is for.
    pub role: EndpointRole,
}

/// What a pod named by hand is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointRole {
    /// Prefill and decode.
    #[default]
    Both,
    /// Only prefill legs.
    Prefill,
    /// Decode legs and whole requests.
    Decode,
}

/// Finding pods through the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Watches pods, by the service account's rights (get, list and watch on pods).
    pub enabled: bool,
    /// Where the pods are; none: the gateway's own namespace.
    pub namespace: Option<String>,
    /// Which pods, as a label selector.
    pub selector: String,
    /// Name of the container port that serves the OpenAI API.
    pub port_name: String,
    /// The port of pods that name none.
    pub port: u16,
}

/// Either form of an endpoint.
struct EndpointForm;

/// The long form of an endpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UrlAndRole {
    url: String,
    #[serde(default)]
    role: EndpointRole,
}

// === impl Endpoint ===

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.role {
            EndpointRole::Both => serializer.serialize_str(&self.url),
            role => UrlAndRole { url: self.url.clone(), role }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EndpointForm)
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let role = EndpointRole::json_schema(generator);
        json_schema!({
            "anyOf": [
                { "type": "string", "format": "uri" },
                {
                    "type": "object",
                    "properties": { "url": { "type": "string", "format": "uri" }, "role": role },
                    "required": ["url"],
                    "additionalProperties": false,
                },
            ],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

// === impl EndpointForm ===

impl<'de> Visitor<'de> for EndpointForm {
    type Value = Endpoint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`http://host:port` or `{url: http://host:port, role: prefill}`")
    }

    fn visit_str<E>(self, url: &str) -> Result<Endpoint, E> {
        Ok(Endpoint { url: url.to_owned(), role: EndpointRole::Both })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
        let UrlAndRole { url, role } = UrlAndRole::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Endpoint { url, role })
    }
}

// === impl EndpointRole ===

impl From<EndpointRole> for Role {
    fn from(role: EndpointRole) -> Self {
        match role {
            EndpointRole::Both => Self::Both,
            EndpointRole::Prefill => Self::Prefill,
            EndpointRole::Decode => Self::Decode,
        }
    }
}

// === impl Kubernetes ===

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            enabled: false,
            namespace: None,
            selector: "llm-d.ai/inferenceServing=true".to_owned(),
            port_name: "http".to_owned(),
            port: 8000,
        }
    }
}
