//! What can be wrong with a pod, switched on and off while it runs.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::errors::ApiError;

/// One thing that is wrong. As JSON: `{"fault": "reset", "after_bytes": 1000}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The listener is closed: connections are refused. Open ones go on. Ends by itself after
    /// `for_ms`, if given (an admin call needs an open connection to end it).
    Refuse { for_ms: Option<u64> },
    /// Connections are reset once a response has sent this many bytes, head included.
    Reset { after_bytes: usize },
    /// Responses stop after this many bytes; connections stay open.
    Stall { after_bytes: usize },
    /// POSTs get this status with vLLM's body for it (500: "cannot schedule new futures after
    /// shutdown", 503: the queue is full), for the next `times` requests or until cleared.
    /// `/health` stays 200, as in a draining vLLM.
    Status { status: u16, times: Option<u32> },
    /// POSTs wait this long before anything else happens.
    SlowHead { delay_ms: u64 },
    /// Another model's name is served.
    WrongModel,
    /// Generations break after this many tokens (0: after the head of a stream; none: after the
    /// last token, before usage and `[DONE]`), for the next `times` choices or until cleared.
    Break { after_tokens: Option<usize>, how: Break, times: Option<u32> },
    /// The process is killed: listener and connections close at once. When the fault is over it is
    /// a new process: empty cache, new engine id. Ends by itself after `for_ms`, if given.
    Down { for_ms: Option<u64> },
    /// SIGTERM of a vLLM without `--shutdown-timeout`: the listener closes, open streams send
    /// nothing more and are not closed. When the fault is over it is a new process.
    Freeze { for_ms: Option<u64> },
    /// The engine dies under its API server: open streams get an error event and `[DONE]`, new
    /// requests 500, `/health` says 503. When the fault is over it is a new process.
    EngineDeath { for_ms: Option<u64> },
    /// `/pause` and `/sleep`: requests are taken and answered by nothing, running ones stand still,
    /// `/health` stays 200. They go on when the fault is over.
    Pause,
    /// A prefill leg is answered without transfer parameters.
    NoParams,
    /// A prefill leg is answered with the id of an engine that does not exist.
    WrongEngine,
    /// A prefill leg's blocks are given back, and overwritten, before anybody can read them: what a
    /// decode leg that comes after the lease meets.
    NoLease,
    /// The process is killed when a decode pod comes to read its blocks.
    DownOnRead,
    /// The process dies for good: listener and connections close at once.
    Exit,
}

/// How a generation breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Break {
    /// An error event inside the 200, then `[DONE]`; 500 without streaming. The pod is sound.
    ErrorEvent,
    /// The response ends as if it were whole.
    Close,
    /// The connection is closed inside the response.
    Cut,
    /// Nothing more comes; the connection stays open.
    Stall,
    /// [`Fault::Down`].
    Down,
    /// [`Fault::Freeze`].
    Freeze,
    /// [`Fault::EngineDeath`].
    EngineDeath,
    /// [`Fault::Pause`].
    Pause,
}

/// What can be done to a pod's KV events. As JSON: `{"do": "drop", "batches": 3}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum KvFault {
    /// The next batches reach no subscriber. They can be replayed, unless they are forgotten too.
    Drop {
        /// How many.
        batches: u64,
        /// Whether the replay does not have them either.
        #[serde(default)]
        forget: bool,
    },
    /// Nothing is published, nor replayed, until resumed; what happens meanwhile is lost.
    Stop,
    /// Ends `Stop` and `Drop`.
    Resume,
    /// The engine's process dies and comes back: empty cache, numbers from 0, new connections.
    Restart,
}

/// A pod's current fault. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    current: watch::Sender<State>,
    /// How often a `times` fault has still to be shown.
    left: Arc<Mutex<Option<u32>>>,
    exit: CancellationToken,
}

/// What is wrong, and with which process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) fault: Option<Fault>,
    /// Grows with every death: connections and engines of another process are gone.
    pub(super) process: u64,
}

// === impl Fault ===

impl Fault {
    /// Whether the process's engine ends with it.
    fn kills(self) -> bool {
        matches!(self, Self::Down { .. } | Self::Freeze { .. } | Self::EngineDeath { .. })
    }

    fn times(self) -> Option<u32> {
        match self {
            Self::Status { times, .. } | Self::Break { times, .. } => times,
            _ => None,
        }
    }
}

// === impl Break ===

impl Break {
    /// The fault of the whole pod that this is, if it is one.
    pub(super) fn of_pod(self) -> Option<Fault> {
        match self {
            Self::Down => Some(Fault::Down { for_ms: None }),
            Self::Freeze => Some(Fault::Freeze { for_ms: None }),
            Self::EngineDeath => Some(Fault::EngineDeath { for_ms: None }),
            Self::Pause => Some(Fault::Pause),
            Self::ErrorEvent | Self::Close | Self::Cut | Self::Stall => None,
        }
    }
}

// === impl State ===

impl State {
    /// Whether the engine stands still.
    pub(super) fn is_still(self) -> bool {
        self.fault.is_some_and(|fault| fault.kills() || fault == Fault::Pause)
    }

    /// Whether a connection to `process` is still open.
    pub(super) fn is_open(self, process: u64) -> bool {
        match self.fault {
            // Its connections outlive the engine, whether they speak or not.
            Some(Fault::Freeze { .. } | Fault::EngineDeath { .. }) => process + 1 >= self.process,
            _ => process == self.process,
        }
    }

    /// Whether there is no listener, and for how long.
    pub(super) fn refuses(self) -> Option<Option<u64>> {
        match self.fault? {
            Fault::Refuse { for_ms }
            | Fault::Down { for_ms }
            | Fault::Freeze { for_ms }
            | Fault::EngineDeath { for_ms } => Some(for_ms),
            _ => None,
        }
    }
}

// === impl Faults ===

impl Faults {
    /// Sound; `exit` is cancelled by [`Fault::Exit`].
    pub(super) fn new(exit: CancellationToken) -> Self {
        Self { current: watch::Sender::new(State::default()), left: Arc::default(), exit }
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        *self.left.lock() = fault.and_then(Fault::times);
        self.current.send_modify(|state| {
            state.fault = fault;
            state.process += u64::from(fault.is_some_and(Fault::kills));
        });
        if fault == Some(Fault::Exit) {
            self.exit.cancel();
        }
    }

    pub(super) fn state(&self) -> State {
        *self.current.borrow()
    }

    pub(super) fn now(&self) -> Option<Fault> {
        self.state().fault
    }

    /// To wait for changes with.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.current.subscribe()
    }

    /// Resolves when the fault changes from what it is now.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut watcher = self.current.subscribe();
        async move {
            // An error is a pod that is gone, which is a change too.
            drop(watcher.changed().await);
        }
    }

    pub(super) fn wrong_model(&self) -> bool {
        self.now() == Some(Fault::WrongModel)
    }

    /// Resolves when the pod shuts down or dies for good.
    pub(super) fn exited(&self) -> impl Future<Output = ()> + Send + 'static {
        self.exit.clone().cancelled_owned()
    }

    /// Resolves when the pod shuts down, or when connections to `process` close.
    pub(super) fn closed(&self, process: u64) -> impl Future<Output = ()> + Send + 'static {
        let (exit, mut watcher) = (self.exit.clone(), self.current.subscribe());
        async move {
            tokio::select! {
                () = exit.cancelled() => {}
                // An error is a pod that is gone.
                _ = watcher.wait_for(|state| !state.is_open(process)) => {}
            }
        }
    }

    /// What a POST meets before its route: a delay, or an error instead of an answer.
    pub(super) async fn meet_post(&self) -> Result<(), ApiError> {
        match self.now() {
            Some(Fault::SlowHead { delay_ms }) => {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                Ok(())
            }
            Some(Fault::EngineDeath { .. }) => Err(ApiError::engine_dead()),
            Some(Fault::Status { status, .. }) if self.take_one() => Err(match status {
                500 => ApiError::shutting_down(),
                503 => ApiError::busy(),
                other => ApiError::of_status(other),
            }),
            _ => Ok(()),
        }
    }

    /// How a generation that begins now is to break: after how many tokens, and how.
    pub(super) fn meet_generation(&self) -> Option<(Option<usize>, Break)> {
        match self.now() {
            Some(Fault::Break { after_tokens, how, .. }) if self.take_one() => {
                Some((after_tokens, how))
            }
            _ => None,
        }
    }

    /// Counts one showing of a `times` fault; false if there is none left.
    fn take_one(&self) -> bool {
        match &mut *self.left.lock() {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}
