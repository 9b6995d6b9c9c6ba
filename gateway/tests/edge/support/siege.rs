//! A gateway under fire, as a process of its own, so that its memory can be measured.

use std::net::SocketAddr;

use loadtest::simulator::Simulator;

use super::process::Process;
use super::wire::{Wire, post};
use super::{at_rest, fast_pod, simulate, within};

/// What must come of something hostile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// A refusal of our own, with this status and code, on a connection that is closed after it.
    Refused(u16, &'static str),
    /// A refusal of our own on a connection that stays.
    Kept(u16, &'static str),
    /// An answer with this status, whoever gave it.
    Answer(u16),
    /// The connection is closed without a word.
    Closed,
}

/// A gateway, and the one pod behind it.
pub(crate) struct Siege {
    pub(crate) hearth: Process,
    pub(crate) pod: Simulator,
    resident_bytes: u64,
    descriptors: usize,
}

/// Memory that a gateway may keep after a siege: its allocator gives back late.
const SPARE_BYTES: u64 = 96 << 20;

/// What the limits are set to.
pub(crate) const BODY_LIMIT: &str = "4MiB";

const GOOD: &str = r#"{"model":"tiny","prompt":"a","max_tokens":1}"#;

// === impl Siege ===

impl Siege {
    pub(crate) async fn begin() -> Self {
        let pod = simulate(fast_pod()).await;
        let flags = [
            "--deadlines-request-head",
            "500ms",
            "--deadlines-request-body",
            "500ms",
            "--deadlines-client-write",
            "500ms",
            "--limits-body",
            BODY_LIMIT,
        ];
        let hearth = Process::serve(&[pod.addr()], &flags).await;
        let mut siege = Self { hearth, pod, resident_bytes: 0, descriptors: 0 };
        // Warm: what is allocated once is no leak.
        for _ in 0..20 {
            siege.still_serves("warming up").await;
        }
        siege.resident_bytes = siege.hearth.resident_bytes();
        siege.descriptors = siege.hearth.descriptors();
        siege
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.hearth.addr
    }

    /// Sends one thing and looks at what comes of it.
    pub(crate) async fn meets(&self, name: &str, bytes: &[u8], fate: Fate) {
        let mut wire = Wire::connect(self.addr()).await;
        wire.send(bytes).await;
        let answer = wire.answer().await;
        let seen = answer.as_ref().map(|it| (it.status, it.code()));
        match fate {
            Fate::Refused(status, code) => {
                assert_eq!(seen, Some((status, code.to_owned())), "{name}");
                let head = answer.expect("it was compared").head;
                for field in ["connection: close", "x-request-id: ", "x-hearth-decision: none"] {
                    assert!(head.contains(field), "{name}: {field} in {head}");
                }
                assert!(wire.is_ended().await, "{name}: nothing comes after it");
            }
            Fate::Kept(status, code) => {
                assert_eq!(seen, Some((status, code.to_owned())), "{name}");
                wire.send(&post("/v1/completions", GOOD)).await;
                let second = wire.answer().await.map(|it| it.status);
                assert_eq!(second, Some(200), "{name}: the connection can be used");
            }
            Fate::Answer(status) => {
                assert_eq!(seen.as_ref().map(|it| it.0), Some(status), "{name}: {answer:?}");
            }
            Fate::Closed => assert_eq!(seen, None, "{name}"),
        }
        drop(wire);
        self.still_serves(name).await;
    }

    /// Whether a good request is answered.
    pub(crate) async fn still_serves(&self, after: &str) {
        let mut wire = Wire::connect(self.addr()).await;
        wire.send(&post("/v1/completions", GOOD)).await;
        let status = wire.answer().await.map(|it| it.status);
        assert_eq!(status, Some(200), "a good request after: {after}");
    }

    /// Nothing is held, memory and descriptors are back at their base.
    pub(crate) async fn end(self) {
        at_rest(&self.hearth.client, self.hearth.admin).await;
        let descriptors = async {
            // Our own client may hold a connection to the admin listener.
            while self.hearth.descriptors() > self.descriptors + 2 {
                self.hearth.readyz().await;
            }
        };
        within("its sockets are closed", descriptors).await;
        let grown = self.hearth.resident_bytes().saturating_sub(self.resident_bytes);
        assert!(grown < SPARE_BYTES, "memory has grown by {} MiB", grown >> 20);
        self.pod.shutdown().await;
    }
}
