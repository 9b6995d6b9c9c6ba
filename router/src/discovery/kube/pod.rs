//! What a Kubernetes pod is to us.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::discovery::Sighting;
use crate::pod::{self, KvPorts, Role};

/// What a pod's role label means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// It generates text.
    Role(Role),
    /// It only encodes images or sound for others: no pod of ours.
    Encoder,
    /// A label that we do not know; `both` is assumed.
    Strange(&'a str),
}

/// The label of llm-d. Its values: `prefill`, `decode`, `encode`, sets of these joined by hyphens,
/// and the older `both`.
const ROLE_LABEL: &str = "llm-d.ai/role";
/// Ports of the pod's KV events, for pods that do not answer `/kv_event_sources`: see [`KvPorts`].
const KV_EVENTS_ANNOTATION: &str = "hearth.dev/kv-events";

/// One of the pod's labels.
pub(super) fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Reads the pod's role label.
pub(super) fn kind(pod: &Pod) -> Kind<'_> {
    let label = label(pod, ROLE_LABEL).unwrap_or_default();
    let (mut prefill, mut decode) = (false, false);
    for part in label.split('-') {
        match part {
            "" | "both" => (prefill, decode) = (true, true),
            "prefill" => prefill = true,
            "decode" => decode = true,
            "encode" => {}
            _ => return Kind::Strange(label),
        }
    }
    match (prefill, decode) {
        (true, true) => Kind::Role(Role::Both),
        (true, false) => Kind::Role(Role::Prefill),
        (false, true) => Kind::Role(Role::Decode),
        (false, false) => Kind::Encoder,
    }
}

/// The pod once for each of its ports: the one of that name, or else all of `ports`. Each port is
/// an engine of its own, with its own cache.
pub(super) fn sightings(
    pod: &Pod,
    kind: Kind<'_>,
    port_name: &str,
    ports: &[u16],
) -> Vec<Sighting> {
    let Some((&first, others)) = ports.split_first() else { return Vec::new() };
    let Some(sighting) = sighting(pod, kind, port_name, first) else { return Vec::new() };
    let others = if named_port(pod, port_name).is_some() { &[] } else { others };
    let more = others.iter().map(|&port| {
        let mut other = sighting.clone();
        other.pod.uid = format!("{}:{port}", sighting.pod.uid).into();
        other.pod.name = format!("{}:{port}", sighting.pod.name).into();
        other.pod.addr.set_port(port);
        other
    });
    std::iter::once(sighting.clone()).chain(more).collect()
}

/// The pod with its address, if it may serve now or later; whether it may now. A pod that ended or
/// has no IP yet is none.
fn sighting(pod: &Pod, kind: Kind<'_>, port_name: &str, default_port: u16) -> Option<Sighting> {
    let role = match kind {
        Kind::Role(role) => role,
        Kind::Strange(_) => Role::Both,
        Kind::Encoder => return None,
    };
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let ip: IpAddr = status.pod_ip.as_deref()?.parse().ok()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    Some(Sighting {
        pod: pod::Pod {
            uid: pod.metadata.uid.as_deref()?.into(),
            name: pod.metadata.name.as_deref()?.into(),
            addr: SocketAddr::new(ip, named_port(pod, port_name).unwrap_or(default_port)),
            role,
            topology: None,
            kv_ports: kv_ports(pod),
            rank: None,
        },
        serving: ready && pod.metadata.deletion_timestamp.is_none(),
        grace: grace(pod),
    })
}

/// How long a pod that terminates may still run. Without a clock: that of the API server is not ours.
fn grace(pod: &Pod) -> Option<Duration> {
    let _since = pod.metadata.deletion_timestamp.as_ref()?;
    let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// The pod's annotation that says where its KV events are.
fn kv_ports(pod: &Pod) -> Option<KvPorts> {
    let text = pod.metadata.annotations.as_ref()?.get(KV_EVENTS_ANNOTATION)?;
    let name = pod.metadata.name.as_deref();
    let ports = text.parse::<KvPorts>();
    ports.inspect_err(|error| tracing::warn!(pod = name, text, %error, KV_EVENTS_ANNOTATION)).ok()
}

/// The first container port of that name.
fn named_port(pod: &Pod, name: &str) -> Option<u16> {
    let containers = pod.spec.as_ref()?.containers.iter();
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let named = ports.into_iter().find(|port| port.name.as_deref() == Some(name))?;
    u16::try_from(named.container_port).ok()
}
