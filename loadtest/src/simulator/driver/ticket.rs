//! A request in flight, as a guard.

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::Driver;
use crate::simulator::{
    engine::Busy,
    fault::State,
    sequence::{Output, Prompt, RequestId},
};

/// A request in flight. Dropping it before its last output aborts it, as a disconnect does.
pub(in crate::simulator) struct Ticket {
    driver: Driver,
    /// The process that took it.
    process: u64,
    stage: Stage,
}

/// What came of a read of another pod's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) enum Reading {
    /// What was in them.
    Received(Vec<u64>),
    /// It did not work, and the prompt is computed here instead.
    Recompute,
    /// It did not work, and that is the answer.
    Failed,
}

enum Stage {
    /// The KV is still with another pod.
    Reading { reading: BoxFuture<'static, Reading>, prompt: Box<Prompt>, _counted: Counted },
    /// The engine has it.
    Queued { id: RequestId, outputs: mpsc::Receiver<Output> },
    /// The KV did not come.
    Failed,
}

/// Counted among those that wait for KV for as long as it lives.
struct Counted(Driver);

// === impl Driver ===

impl Driver {
    /// Queues a request when its KV has been read from another pod. The limit of the queue applies
    /// now.
    pub(in crate::simulator) fn submit_after(
        &self,
        reading: BoxFuture<'static, Reading>,
        prompt: Prompt,
    ) -> Result<Ticket, Busy> {
        {
            let mut state = self.lock();
            state.engine.admits()?;
            state.reading += 1;
        }
        let _counted = Counted(self.clone());
        let stage = Stage::Reading { reading, prompt: Box::new(prompt), _counted };
        Ok(Ticket::new(self.clone(), stage))
    }
}

// === impl Ticket ===

impl Ticket {
    pub(super) fn queued(driver: Driver, id: RequestId, outputs: mpsc::Receiver<Output>) -> Self {
        Self::new(driver, Stage::Queued { id, outputs })
    }

    fn new(driver: Driver, stage: Stage) -> Self {
        let process = driver.0.faults.state().process;
        Self { driver, process, stage }
    }

    /// The next output; none after the last, if the engine stopped, or if the KV did not come.
    pub(in crate::simulator) async fn next(&mut self) -> Option<Output> {
        if let Stage::Reading { reading, prompt, .. } = &mut self.stage {
            let reading = reading.await;
            let mut prompt = std::mem::take(&mut **prompt);
            self.stage = match reading {
                Reading::Failed => Stage::Failed,
                Reading::Recompute => self.enqueue(prompt),
                Reading::Received(contents) => {
                    prompt.received = Some(contents);
                    self.enqueue(prompt)
                }
            };
        }
        if !is_alive(self.driver.0.faults.watch(), self.process).await {
            return None;
        }
        match &mut self.stage {
            Stage::Queued { outputs, .. } => outputs.recv().await,
            Stage::Reading { .. } | Stage::Failed => None,
        }
    }

    fn enqueue(&self, prompt: Prompt) -> Stage {
        match self.driver.enqueue(prompt) {
            Ok((id, outputs)) => Stage::Queued { id, outputs },
            Err(Busy) => Stage::Failed,
        }
    }

    /// Whether it ended because another pod's KV did not come.
    pub(in crate::simulator) fn has_no_kv(&self) -> bool {
        matches!(self.stage, Stage::Failed)
    }

    /// Ends the request as finished, not aborted: its text held a stop string.
    pub(in crate::simulator) fn stop(&self) {
        self.end(true);
    }

    fn end(&self, stopped: bool) {
        if let Stage::Queued { id, .. } = &self.stage {
            self.driver.cancel(*id, stopped);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Unknown to the engine if it has finished: then this does nothing.
        self.end(false);
    }
}

/// Waits while the engine stands still, as what it has not said yet is not out either; false if it
/// is another one then.
async fn is_alive(mut faults: watch::Receiver<State>, process: u64) -> bool {
    loop {
        let state = *faults.borrow_and_update();
        if state.process != process || !state.is_still() {
            return state.process == process;
        }
        super::change(&mut faults).await;
    }
}

// === impl Counted ===

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.lock().reading -= 1;
    }
}
