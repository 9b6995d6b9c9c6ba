//! Mooncake's bootstrap server: which engines a prefill pod has.
//!
//! `GET http://POD:8998/query` answers `{"0": {"engine_id": "..."}, ...}`, one per data-parallel rank.
//! A process has new engines, so the answer is kept by the pod's uid, and dropped when one
//! of its engines was of no use.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use router::pool::Pod;
use serde::Deserialize;
use tokio::time::timeout;

use super::prefill::whole;
use crate::proxy::Gateway;
use crate::proxy::upstream::{Answer, get_for};
use crate::request::failure::Failure;

/// The engines of the prefill pods that were asked, by the pods' uids.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Engines(Mutex<HashMap<Arc<str>, Arc<[Engine]>>>);

/// One engine of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Engine {
    pub(super) id: Arc<str>,
    /// Its rank, where the pod has several.
    pub(super) rank: Option<u32>,
}

#[derive(Deserialize)]
struct Entry {
    engine_id: String,
}

/// Pods whose engines are kept; more come only with pods that went long ago.
const MOST: usize = 4096;

/// How long the bootstrap server has.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

// === impl Engines ===

impl Engines {
    /// One of the pod's engines was of no use: it may have been another process's.
    pub(in crate::proxy) fn forget(&self, pod: &Pod) {
        self.0.lock().remove(&pod.uid);
    }

    fn known(&self, pod: &Pod) -> Option<Arc<[Engine]>> {
        self.0.lock().get(&pod.uid).cloned()
    }

    fn keep(&self, pod: &Pod, engines: &Arc<[Engine]>) {
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(Arc::clone(&pod.uid), Arc::clone(engines));
    }
}

// === impl Gateway ===

impl Gateway {
    /// The pod's engine; of several, where they are not pods of their own, the transfer's number says
    /// which.
    pub(super) async fn engine(&self, pod: &Pod, room: u64) -> Result<Engine, Failure> {
        let engines = match self.engines.known(pod) {
            Some(engines) => engines,
            None => {
                let asked = timeout(LIMIT, self.ask_for_engines(pod)).await;
                let engines = asked.unwrap_or(Err(Failure::NoEngine))?;
                self.engines.keep(pod, &engines);
                engines
            }
        };
        let at = pod.rank.map_or(room, u64::from);
        let at = usize::try_from(at).unwrap_or_default() % engines.len().max(1);
        engines.get(at).cloned().ok_or(Failure::NoEngine)
    }

    async fn ask_for_engines(&self, pod: &Pod) -> Result<Arc<[Engine]>, Failure> {
        let addr = SocketAddr::new(pod.addr.ip(), self.config.split.connector_port());
        let server = Pod { addr, rank: None, ..pod.clone() };
        let head = get_for("/query").map_err(|_invalid| Failure::NoEngine)?;
        let empty = Bytes::new();
        let call = self.call(&server, &head, &empty);
        let Answer { head, first, mut connection, .. } = Answer::of(&call, LIMIT).await?;
        if !head.status.is_success() {
            return Err(Failure::NoEngine);
        }
        let body = whole(&mut connection, first).await?;
        connection.release(&self.connector, self.config.deadlines.upstream_idle.get()).await;
        read(&body).ok_or(Failure::NoEngine)
    }
}

/// The engines in the order of their ranks; none if the answer is none.
fn read(body: &[u8]) -> Option<Arc<[Engine]>> {
    let entries: BTreeMap<u32, Entry> = serde_json::from_slice(body).ok()?;
    let is_alone = entries.len() == 1;
    let engine = |(rank, entry): (u32, Entry)| Engine {
        id: entry.engine_id.into(),
        rank: (!is_alone).then_some(rank),
    };
    Some(entries.into_iter().map(engine).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_come_in_the_order_of_their_ranks() {
        let engine = |id: &str, rank| Engine { id: id.into(), rank };
        let two = br#"{"1":{"engine_id":"b","worker_addr":{}},"0":{"engine_id":"a"}}"#;
        assert_eq!(read(two).as_deref(), Some(&[engine("a", Some(0)), engine("b", Some(1))][..]));
        assert_eq!(read(br#"{"0":{"engine_id":"a"}}"#).as_deref(), Some(&[engine("a", None)][..]));
        assert_eq!(read(b"{}").as_deref(), Some(&[][..]));
        assert_eq!(read(b"[]"), None);
    }
}
