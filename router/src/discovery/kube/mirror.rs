//! The namespace as the watch has told it so far.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;

use super::pod::{self, Kind};
use crate::discovery::{Desired, Sighting};

/// The pods we want of a namespace, by uid. Of each pod's kilobytes only the identity is kept.
#[derive(Debug)]
pub(super) struct Mirror {
    port_name: String,
    ports: Vec<u16>,
    topology_label: String,
    /// Of each pod one sighting for each of its ports.
    pods: BTreeMap<String, Vec<Sighting>>,
    /// A list that is on its way; it replaces `pods` when it is whole.
    listing: Option<BTreeMap<String, Vec<Sighting>>>,
    /// Whether a list was ever whole.
    listed: bool,
    /// Role labels that were warned about.
    strange: BTreeSet<String>,
}

/// Warnings about strange role labels end after so many different ones.
const MAX_STRANGE: usize = 64;

// === impl Mirror ===

impl Mirror {
    pub(super) fn new(port_name: String, ports: Vec<u16>, topology_label: String) -> Self {
        Self {
            port_name,
            ports,
            topology_label,
            pods: BTreeMap::new(),
            listing: None,
            listed: false,
            strange: BTreeSet::new(),
        }
    }

    /// Whether it shows the namespace as the watch has told it, and no list is on its way.
    pub(super) fn is_whole(&self) -> bool {
        self.listed && self.listing.is_none()
    }

    /// Takes one event in. Returns the whole set if there is something new to tell.
    pub(super) fn fold(&mut self, event: Event<Pod>) -> Option<Desired> {
        match event {
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                None
            }
            Event::InitApply(pod) => {
                if let Some((uid, sightings)) = self.read(&pod)
                    && !sightings.is_empty()
                {
                    self.listing.get_or_insert_default().insert(uid, sightings);
                }
                None
            }
            Event::InitDone => {
                self.pods = self.listing.take().unwrap_or_default();
                self.listed = true;
                Some(self.told(false))
            }
            Event::Apply(pod) => {
                let (uid, sightings) = self.read(&pod)?;
                if sightings.is_empty() {
                    let by_removal = self.pods.remove(&uid).is_some();
                    return Some(self.told(by_removal));
                }
                self.pods.insert(uid, sightings);
                Some(self.told(false))
            }
            Event::Delete(pod) => {
                self.pods.remove(pod.metadata.uid.as_deref()?)?;
                Some(self.told(true))
            }
        }
    }

    fn told(&self, by_removal: bool) -> Desired {
        Desired { pods: self.pods.values().flatten().cloned().collect(), trouble: None, by_removal }
    }

    /// The pod's uid, and what it is to us: empty if it is nothing.
    fn read(&mut self, pod: &Pod) -> Option<(String, Vec<Sighting>)> {
        let uid = pod.metadata.uid.clone()?;
        let kind = pod::kind(pod);
        if let Kind::Strange(label) = kind
            && self.strange.len() < MAX_STRANGE
            && self.strange.insert(label.to_owned())
        {
            let name = pod.metadata.name.as_deref();
            tracing::warn!(pod = name, label, "unknown llm-d.ai/role: taken as `both`");
        }
        let mut sightings = pod::sightings(pod, kind, &self.port_name, &self.ports);
        let topology = pod::label(pod, &self.topology_label).map(Arc::<str>::from);
        for sighting in &mut sightings {
            sighting.pod.topology.clone_from(&topology);
        }
        Some((uid, sightings))
    }
}
