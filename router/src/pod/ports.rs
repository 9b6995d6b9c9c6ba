//! Where a pod's KV events are, as its annotation says it.

use std::fmt;
use std::str::FromStr;

/// Ports of a pod's publishers, as its annotation has them: `5557`, `5557,5558` with a replay port,
/// `5557,5657,2` for two data-parallel ranks on consecutive ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KvPorts {
    /// Of the first rank's publisher.
    pub publish: u16,
    /// Of the first rank's replay; none: no history can be had.
    pub replay: Option<u16>,
    /// Data-parallel ranks, each on the next ports.
    pub ranks: u16,
}

/// A text that is not ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not PORT, PORT,REPLAY_PORT or PORT,REPLAY_PORT,RANKS")]
pub struct PortsError;

// === impl KvPorts ===

impl FromStr for KvPorts {
    type Err = PortsError;

    fn from_str(text: &str) -> Result<Self, PortsError> {
        let mut parts = text.split(',').map(|part| part.trim().parse::<u16>());
        let mut next = || parts.next().transpose().map_err(|_not_a_number| PortsError);
        let publish = next()?.filter(|port| *port != 0).ok_or(PortsError)?;
        let replay = next()?.filter(|port| *port != 0);
        let ranks = next()?.unwrap_or(1);
        if ranks == 0 || next()?.is_some() {
            return Err(PortsError);
        }
        Ok(Self { publish, replay, ranks })
    }
}

impl fmt::Display for KvPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{}", self.publish, self.replay.unwrap_or(0), self.ranks)
    }
}
