//! A gateway under fire, as a process of its own, so that its memory can be measured.

use std::net::SocketAddr;

use loadtest::simulator::Simulator;
use parking_lot::Mutex;

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
    /// What was not as it should be: all of it is told at the end.
    complaints: Mutex<Vec<String>>,
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
        let mut siege =
            Self { hearth, pod, resident_bytes: 0, descriptors: 0, complaints: Mutex::default() };
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
        let (status, code) =
            answer.as_ref().map_or((0, String::new()), |it| (it.status, it.code()));
        let head = answer.as_ref().map_or("", |it| &it.head);
        let has = |field: &str| head.lines().any(|line| line.starts_with(field));
        let is_ours = has("x-request-id: ") && has("x-hearth-decision: none;");
        let as_told = match fate {
            Fate::Refused(wanted, why) => {
                let closes = has("connection: close") && wire.is_ended().await;
                (status, code.as_str()) == (wanted, why) && is_ours && closes
            }
            Fate::Kept(wanted, why) => {
                wire.send(&post("/v1/completions", GOOD)).await;
                let next = wire.answer().await.map(|it| it.status);
                (status, code.as_str()) == (wanted, why) && is_ours && next == Some(200)
            }
            Fate::Answer(wanted) => status == wanted && has("x-request-id: "),
            Fate::Closed => status == 0,
        };
        if !as_told {
            self.complain(format!("{name}: not {fate:?} but {status} {code}, {head}"));
        }
        drop(wire);
        self.still_serves(name).await;
    }

    pub(crate) fn complain(&self, complaint: String) {
        self.complaints.lock().push(complaint);
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
        let complaints = self.complaints.lock().join("\n");
        assert!(complaints.is_empty(), "{complaints}");
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
