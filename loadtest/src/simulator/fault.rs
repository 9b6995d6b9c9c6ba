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
    /// The process dies: listener and connections close at once.
    Exit,
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
    current: watch::Sender<Option<Fault>>,
    /// How often a `times` fault has still to be shown.
    left: Arc<Mutex<Option<u32>>>,
    exit: CancellationToken,
}

// === impl Faults ===

impl Faults {
    /// Sound; `exit` is cancelled by [`Fault::Exit`].
    pub(super) fn new(exit: CancellationToken) -> Self {
        Self { current: watch::Sender::new(None), left: Arc::default(), exit }
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        *self.left.lock() = match fault {
            Some(Fault::Status { times, .. }) => times,
            _ => None,
        };
        self.current.send_replace(fault);
        if fault == Some(Fault::Exit) {
            self.exit.cancel();
        }
    }

    pub(super) fn now(&self) -> Option<Fault> {
        *self.current.borrow()
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

    /// Resolves when the pod shuts down or dies.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.exit.clone().cancelled_owned()
    }

    /// What a POST meets before its route: a delay, or an error instead of an answer.
    pub(super) async fn meet_post(&self) -> Result<(), ApiError> {
        match self.now() {
            Some(Fault::SlowHead { delay_ms }) => {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                Ok(())
            }
            Some(Fault::Status { status, .. }) if self.take_one() => Err(match status {
                500 => ApiError::shutting_down(),
                503 => ApiError::busy(),
                other => ApiError::of_status(other),
            }),
            _ => Ok(()),
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
