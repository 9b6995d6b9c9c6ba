//! An InferencePool: the cluster's own word for which pods serve, and on which of their ports.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde::Deserialize;

use super::Selection;

/// The API's two homes, the present one first.
const VERSIONS: [(&str, &str); 2] =
    [("inference.networking.k8s.io", "v1"), ("inference.networking.x-k8s.io", "v1alpha2")];
/// As the API bounds them.
const MAX_PORTS: usize = 8;

/// Why a pool cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InferencePoolError {
    #[error("there is no InferencePool `{name}` in namespace `{namespace}`")]
    Missing { name: String, namespace: String },
    #[error(
        "RBAC: the API server forbids the gateway to get, list and watch inferencepools in \
         namespace `{namespace}`; bind its ServiceAccount to a Role that allows it ({message})"
    )]
    Forbidden { namespace: String, message: String },
    #[error("InferencePool `{name}`: {source}")]
    Api { name: String, source: Box<kube::Error> },
    #[error("InferencePool `{name}`: {reason}")]
    Unusable { name: String, reason: String },
}

/// What we read of both versions' `spec`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    selector: Selector,
    #[serde(default)]
    target_ports: Vec<Port>,
    target_port_number: Option<u16>,
    app_protocol: Option<String>,
}

/// `{matchLabels: {...}}`, or the labels themselves before v1.
#[derive(Deserialize)]
#[serde(untagged)]
enum Selector {
    Labels {
        #[serde(rename = "matchLabels")]
        match_labels: BTreeMap<String, String>,
    },
    Old(BTreeMap<String, String>),
}

#[derive(Deserialize)]
struct Port {
    number: u16,
}

/// Looks for the pool under either version of the API.
pub(super) async fn find(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Api<DynamicObject>, InferencePoolError> {
    for (group, version) in VERSIONS {
        let kind = GroupVersionKind::gvk(group, version, "InferencePool");
        let resource = ApiResource::from_gvk(&kind);
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        match api.get_opt(name).await {
            Ok(Some(_)) => return Ok(api),
            // A version that is not installed answers 404 too.
            Ok(None) => {}
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let (namespace, message) = (namespace.to_owned(), status.message.clone());
                return Err(InferencePoolError::Forbidden { namespace, message });
            }
            Err(source) => {
                let (name, source) = (name.to_owned(), Box::new(source));
                return Err(InferencePoolError::Api { name, source });
            }
        }
    }
    Err(InferencePoolError::Missing { name: name.to_owned(), namespace: namespace.to_owned() })
}

/// The pods and ports that the pool names.
pub(super) fn selection(pool: &DynamicObject) -> Result<Selection, InferencePoolError> {
    let name = pool.metadata.name.clone().unwrap_or_default();
    let unusable = |reason: String| InferencePoolError::Unusable { name: name.clone(), reason };
    let spec = pool.data.get("spec").cloned().unwrap_or_default();
    let spec: Spec = serde_json::from_value(spec).map_err(|error| unusable(error.to_string()))?;
    if spec.app_protocol.as_deref().is_some_and(|protocol| protocol != "http") {
        return Err(unusable("only appProtocol `http` is spoken with pods".to_owned()));
    }
    let (Selector::Labels { match_labels: labels } | Selector::Old(labels)) = spec.selector;
    if labels.is_empty() {
        return Err(unusable("an empty selector would take every pod".to_owned()));
    }
    let mut ports: Vec<_> = spec.target_ports.iter().map(|port| port.number).collect();
    ports.extend(spec.target_port_number.filter(|_| ports.is_empty()));
    ports.truncate(MAX_PORTS);
    if ports.is_empty() {
        return Err(unusable("it names no port".to_owned()));
    }
    let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    // Its ports are numbers: what a container calls them is of no account.
    Ok(Selection { selector: pairs.join(","), port_name: String::new(), ports })
}
