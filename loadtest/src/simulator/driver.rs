//! The one task that lets an engine's steps take their time, and the tickets it serves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    engine::{Busy, Engine, Step},
    fault::{Faults, KvFault, State as FaultState},
    publisher::Publisher,
    sequence::{Output, Prompt, RequestId},
};

mod ticket;

pub(super) use ticket::{Reading, Ticket};

/// An engine in real (or paused) time. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Driver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Where cache events go; none: nowhere.
    publisher: Option<Publisher>,
    faults: Faults,
    /// Rung when a request arrives.
    wake: Notify,
    /// Rung when blocks are kept for another pod.
    kept: Notify,
    started: Instant,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    /// Where each request's outputs go. A channel holds a whole answer, so a slow client never
    /// holds up the engine, and never more than its own answer's worth of memory.
    sinks: HashMap<RequestId, mpsc::Sender<Output>>,
    /// Requests that wait for another pod's KV.
    reading: usize,
    /// The process that the engine belongs to, as the faults count them.
    process: u64,
    /// How often an engine was begun anew.
    restarts: u64,
}

/// Ends every ticket when the engine's task ends, however it ends.
struct CloseSinks<'a>(&'a Driver);

// === impl Driver ===

impl Driver {
    pub(super) fn new(engine: Engine, publisher: Option<Publisher>, faults: Faults) -> Self {
        let process = faults.state().process;
        let state = State { engine, sinks: HashMap::new(), reading: 0, process, restarts: 0 };
        let (wake, kept) = (Notify::new(), Notify::new());
        let started = Instant::now();
        let state = Mutex::new(state);
        Self(Arc::new(Shared { state, publisher, faults, wake, kept, started }))
    }

    /// Queues a request.
    pub(super) fn submit(&self, prompt: Prompt) -> Result<Ticket, Busy> {
        let (id, outputs) = self.enqueue(prompt)?;
        Ok(Ticket::queued(self.clone(), id, outputs))
    }

    fn enqueue(&self, prompt: Prompt) -> Result<(RequestId, mpsc::Receiver<Output>), Busy> {
        // One output per token, and one for an embedding.
        let (sink, outputs) = mpsc::channel(prompt.max_tokens + 1);
        let now = self.clock();
        let id = {
            let mut state = self.lock();
            let id = state.engine.submit(prompt, now)?;
            state.sinks.insert(id, sink);
            id
        };
        self.0.wake.notify_one();
        Ok((id, outputs))
    }

    /// Looks at the engine between two steps.
    pub(super) fn with_engine<T>(&self, look: impl FnOnce(&mut Engine) -> T) -> T {
        let now = self.clock();
        let mut state = self.lock();
        state.engine.expire_leases(now);
        look(&mut state.engine)
    }

    /// Requests that wait for another pod's KV.
    pub(super) fn reading(&self) -> usize {
        self.lock().reading
    }

    /// How often the engine was begun anew: another engine has another id.
    pub(super) fn restarts(&self) -> u64 {
        self.lock().restarts
    }

    /// Resolves when blocks were kept for another pod after this call.
    pub(super) fn kept(&self) -> impl Future<Output = ()> {
        self.0.kept.notified()
    }

    /// Steps the engine until the pod ends.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _sinks = CloseSinks(&self);
        tokio::select! {
            () = self.step_for_ever() => {}
            () = stop.cancelled() => {}
        }
    }

    /// `clock` is the engine's own time: it lags behind the real one by less than a timer's
    /// millisecond while busy, so that rates stay exact though timers are coarse.
    async fn step_for_ever(&self) {
        let mut faults = self.0.faults.watch();
        let mut process = faults.borrow().process;
        let mut clock = self.clock();
        loop {
            if self.stand_still(&mut faults, &mut process).await {
                clock = clock.max(self.clock());
            }
            let step = self.lock().engine.step(clock);
            if let Some(step) = step {
                clock += step.duration;
                match self.wait_until(clock, &mut faults, process).await {
                    Waited::Died => continue,
                    Waited::Paused => clock = clock.max(self.clock()),
                    Waited::Through => {}
                }
                self.finish(step).await;
            } else {
                self.idle(&mut faults).await;
                clock = clock.max(self.clock());
            }
        }
    }

    /// Waits while the engine stands still; says whether it had to. A new process has new sockets.
    async fn stand_still(
        &self,
        faults: &mut watch::Receiver<FaultState>,
        process: &mut u64,
    ) -> bool {
        let mut waited = false;
        loop {
            let state = *faults.borrow_and_update();
            if state.process != *process {
                *process = state.process;
                // The engine is begun anew by whoever looks at it first.
                drop(self.lock());
                if let Some(publisher) = &self.0.publisher {
                    publisher.fault(KvFault::Restart).await;
                }
            }
            if !state.is_still() {
                return waited;
            }
            waited = true;
            change(faults).await;
        }
    }

    async fn wait_until(
        &self,
        end: Duration,
        faults: &mut watch::Receiver<FaultState>,
        process: u64,
    ) -> Waited {
        let mut waited = Waited::Through;
        loop {
            let state = *faults.borrow_and_update();
            if state.process != process {
                return Waited::Died;
            }
            if state.is_still() {
                waited = Waited::Paused;
                change(faults).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.0.started + end) => return waited,
                () = change(faults) => {}
            }
        }
    }

    /// Waits for something to do.
    async fn idle(&self, faults: &mut watch::Receiver<FaultState>) {
        let lease_end = self.lock().engine.next_lease_end();
        let lease_ends = async {
            match lease_end {
                Some(end) => tokio::time::sleep_until(self.0.started + end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.0.wake.notified() => {}
            () = lease_ends => {}
            () = change(faults) => {}
        }
    }

    async fn finish(&self, step: Step) {
        if let Some(publisher) = &self.0.publisher
            && !step.events.is_empty()
        {
            publisher.publish(step.events).await;
        }
        self.deliver(&step.outputs);
        self.0.kept.notify_waiters();
    }

    fn deliver(&self, outputs: &[Output]) {
        let mut state = self.lock();
        for output in outputs {
            let Some(sink) = state.sinks.get(&output.request) else { continue };
            // A closed channel is a ticket being dropped: its drop cancels the request.
            let gone = sink.try_send(*output).is_err();
            if gone || output.finish.is_some() {
                state.sinks.remove(&output.request);
            }
        }
    }

    /// The engine's process dies and comes back: requests end without an answer, the cache is empty.
    pub(super) fn restart(&self) {
        self.lock().restart();
    }

    fn cancel(&self, id: RequestId, stopped: bool) {
        let now = self.clock();
        let mut state = self.lock();
        state.sinks.remove(&id);
        state.engine.cancel(id, stopped, now);
    }

    /// The engine of the process that lives now.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock();
        let process = self.0.faults.state().process;
        if state.process != process {
            state.process = process;
            state.restart();
        }
        state
    }

    /// The engine's clock.
    pub(super) fn clock(&self) -> Duration {
        self.0.started.elapsed()
    }
}

/// How a wait for a step's end went.
enum Waited {
    Through,
    /// The engine stood still for some of it.
    Paused,
    /// The process is gone, and the step with it.
    Died,
}

/// The next change of the faults; never if there can be none any more.
async fn change(faults: &mut watch::Receiver<FaultState>) {
    if faults.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

// === impl State ===

impl State {
    fn restart(&mut self) {
        self.engine.restart();
        self.sinks.clear();
        self.restarts += 1;
    }
}

impl Drop for CloseSinks<'_> {
    fn drop(&mut self) {
        self.0.0.state.lock().sinks.clear();
    }
}

#[cfg(test)]
mod tests;
