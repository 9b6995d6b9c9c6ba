//! The one task that lets an engine's steps take their time, and the tickets it serves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    engine::{Busy, Engine},
    publisher::Publisher,
    sequence::{Output, Prompt, RequestId},
};

/// An engine in real (or paused) time. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Driver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Where cache events go; none: nowhere.
    publisher: Option<Publisher>,
    /// Rung when a request arrives.
    wake: Notify,
    started: Instant,
}

#[derive(Debug)]
struct State {
    engine: Engine,
    /// Where each request's outputs go. A channel holds a whole answer, so a slow client never
    /// holds up the engine, and never more than its own answer's worth of memory.
    sinks: HashMap<RequestId, mpsc::Sender<Output>>,
}

/// A request in flight. Dropping it before its last output aborts it, as a disconnect does.
#[derive(Debug)]
pub(super) struct Ticket {
    id: RequestId,
    driver: Driver,
    outputs: mpsc::Receiver<Output>,
}

/// Ends every ticket when the engine's task ends, however it ends.
struct CloseSinks<'a>(&'a Driver);

// === impl Driver ===

impl Driver {
    pub(super) fn new(engine: Engine, publisher: Option<Publisher>) -> Self {
        let state = Mutex::new(State { engine, sinks: HashMap::new() });
        Self(Arc::new(Shared { state, publisher, wake: Notify::new(), started: Instant::now() }))
    }

    /// Queues a request.
    pub(super) fn submit(&self, prompt: Prompt) -> Result<Ticket, Busy> {
        // One output per token, and one for an embedding.
        let (sink, outputs) = mpsc::channel(prompt.max_tokens + 1);
        let now = self.now();
        let id = {
            let mut state = self.0.state.lock();
            let id = state.engine.submit(prompt, now)?;
            state.sinks.insert(id, sink);
            id
        };
        self.0.wake.notify_one();
        Ok(Ticket { id, driver: self.clone(), outputs })
    }

    /// Looks at the engine between two steps.
    pub(super) fn with_engine<T>(&self, look: impl FnOnce(&mut Engine) -> T) -> T {
        look(&mut self.0.state.lock().engine)
    }

    /// Steps the engine for ever. `clock` is the engine's own time: it lags behind the real one by
    /// less than a timer's millisecond while busy, so that rates stay exact though timers are
    /// coarse.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _sinks = CloseSinks(&self);
        let mut clock = self.now();
        loop {
            let step = self.0.state.lock().engine.step(clock);
            match step {
                Some(step) => {
                    clock += step.duration;
                    tokio::select! {
                        () = tokio::time::sleep_until(self.0.started + clock) => {}
                        () = stop.cancelled() => return,
                    }
                    if let Some(publisher) = &self.0.publisher
                        && !step.events.is_empty()
                    {
                        publisher.publish(step.events).await;
                    }
                    self.deliver(&step.outputs);
                }
                None => {
                    tokio::select! {
                        () = self.0.wake.notified() => {}
                        () = stop.cancelled() => return,
                    }
                    clock = clock.max(self.now());
                }
            }
        }
    }

    fn deliver(&self, outputs: &[Output]) {
        let mut state = self.0.state.lock();
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
        let mut state = self.0.state.lock();
        state.engine.restart();
        state.sinks.clear();
    }

    fn cancel(&self, id: RequestId, stopped: bool) {
        let now = self.now();
        let mut state = self.0.state.lock();
        state.sinks.remove(&id);
        state.engine.cancel(id, stopped, now);
    }

    fn now(&self) -> Duration {
        self.0.started.elapsed()
    }
}

impl Drop for CloseSinks<'_> {
    fn drop(&mut self) {
        self.0.0.state.lock().sinks.clear();
    }
}

// === impl Ticket ===

impl Ticket {
    /// The next output; none after the last, or if the engine stopped.
    pub(super) async fn next(&mut self) -> Option<Output> {
        self.outputs.recv().await
    }

    /// Ends the request as finished, not aborted: its text held a stop string.
    pub(super) fn stop(&self) {
        self.driver.cancel(self.id, true);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Unknown to the engine if it has finished: then this does nothing.
        self.driver.cancel(self.id, false);
    }
}

#[cfg(test)]
mod tests;
