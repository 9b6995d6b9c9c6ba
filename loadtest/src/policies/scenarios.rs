//! The workloads of `loadtest simulate-policies`, each on a fleet that it can hurt.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use super::fleet::{Fleet, Rates, Slo};
use super::traffic::{
    Documents, Questions, TraceError, Traffic, agentic, conversation, read_trace,
};
use crate::simulator::EngineConfig;
use crate::workload::DocumentsShape;

/// A workload on a fleet.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What is sent.
    pub traffic: Traffic,
    /// To whom.
    pub fleet: Fleet,
}

/// Where conversations come from, and by which seed all else is made.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// A trace; none: conversations with its statistics are made.
    pub trace: Option<&'a Path>,
    /// Of everything that is made.
    pub seed: u64,
    /// The share of the whole that is played, up to 1.
    pub share: f64,
}

type Make = fn(&Source<'_>) -> Result<(Traffic, Fleet), TraceError>;

const ALL: [(&str, Make); 17] = [
    ("conversation", |it| Ok((it.conversation()?, Fleet::default()))),
    ("conversation-large-caches", |it| Ok((it.conversation()?, with_blocks(8_000)))),
    ("conversation-twice-as-fast", |it| Ok((it.conversation()?.faster(2.0), Fleet::default()))),
    ("documents-30", |it| Ok((documents(30, None).traffic(it.seed), three_pods()))),
    ("documents-60", |it| Ok((documents(60, None).traffic(it.seed), three_pods()))),
    ("documents-60-zipf", |it| Ok((documents(60, Some(1.1)).traffic(it.seed), three_pods()))),
    ("paced", |it| Ok((paced().traffic(it.seed), three_pods()))),
    ("agentic", |it| Ok((it.agents(), with_blocks_of(128, 6_000)))),
    ("hot-prefix", |it| Ok((it.questions(4_096, 0.8, 600.0, 40.0), with_blocks_of(64, 8_000)))),
    ("all-new", |it| Ok((it.questions(0, 0.0, 3_000.0, 22.0), with_blocks_of(64, 8_000)))),
    ("slow-pod", |it| Ok((it.conversation()?, Fleet { slow: 3.0, ..Fleet::default() }))),
    ("rates-doubled", |it| Ok((it.conversation()?.faster(2.0), believing(Rates::Off(2.0))))),
    ("rates-halved", |it| Ok((it.conversation()?.faster(2.0), believing(Rates::Off(0.5))))),
    ("rates-mixed", |it| Ok((it.conversation()?.faster(2.0), believing(Rates::Mixed(2.0))))),
    ("gateways-2", |it| Ok((it.conversation()?.faster(2.0), behind(2)))),
    ("gateways-4", |it| Ok((it.conversation()?.faster(2.0), behind(4)))),
    ("gateways-8", |it| Ok((it.conversation()?.faster(2.0), behind(8)))),
];

/// The names of all.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ALL.into_iter().map(|(name, _)| name)
}

/// Those of these names, or all if none is named.
///
/// # Errors
/// The trace cannot be used.
pub(super) fn make(source: &Source<'_>, wanted: &[String]) -> Result<Vec<Scenario>, TraceError> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let wanted = ALL.into_iter().filter(|(name, _)| is_wanted(name));
    let scenarios = wanted.map(|(name, make)| {
        let (traffic, fleet) = make(source)?;
        Ok(Scenario { name, traffic, fleet })
    });
    scenarios.collect()
}

fn with_blocks(num_blocks: usize) -> Fleet {
    with_blocks_of(512, num_blocks)
}

fn with_blocks_of(block_size: usize, num_blocks: usize) -> Fleet {
    let fleet = Fleet::default();
    Fleet { engine: EngineConfig { block_size, num_blocks, ..fleet.engine }, ..fleet }
}

fn believing(rates: Rates) -> Fleet {
    Fleet { rates, ..Fleet::default() }
}

fn behind(gateways: usize) -> Fleet {
    Fleet { gateways, ..Fleet::default() }
}

/// Three pods that hold twelve documents each: the fleet of `loadtest documents`.
fn three_pods() -> Fleet {
    let engine = EngineConfig { num_blocks: 1_536, ..EngineConfig::default() };
    let slo = Slo { ttft: Duration::from_millis(100), between: Duration::from_millis(50) };
    Fleet { pods: 3, engine, slo, ..Fleet::default() }
}

fn documents(documents: u32, zipf: Option<f64>) -> Documents {
    let shape = DocumentsShape { documents, sessions_per_document: 10, zipf };
    Documents { shape, shared_tokens: 0, document_tokens: 2_032, at_once: 4 }
}

/// 150 conversations of two turns, one at a time, under a system prompt of 600 tokens.
fn paced() -> Documents {
    let shape = DocumentsShape { documents: 150, sessions_per_document: 1, zipf: None };
    Documents { shape, shared_tokens: 592, document_tokens: 64, at_once: 1 }
}

// === impl Source ===

impl Source<'_> {
    fn conversation(&self) -> Result<Traffic, TraceError> {
        let mut traffic = match self.trace {
            Some(path) => read_trace(BufReader::new(File::open(path)?))?,
            None => return Ok(conversation(self.seed, self.share * 3_537.0)),
        };
        traffic.requests.truncate(self.part(traffic.requests.len()));
        Ok(traffic)
    }

    fn agents(&self) -> Traffic {
        agentic(self.seed, self.part(240) as u64, 2.5)
    }

    fn questions(&self, hot: usize, hot_share: f64, own: f64, rate: f64) -> Traffic {
        let (count, hot_tokens, own_tokens) = (self.part(12_000) as u64, hot, own);
        Questions { count, rate, hot_tokens, hot_share, own_tokens }.traffic(self.seed)
    }

    fn part(&self, whole: usize) -> usize {
        let part = Duration::from_secs_f64(whole as f64 * self.share.clamp(0.0, 1.0)).as_secs();
        usize::try_from(part).unwrap_or(whole)
    }
}
