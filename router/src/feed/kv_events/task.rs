//! One pod: hears its publisher, asks for what it missed, applies what is due.

use std::sync::Arc;
use std::time::Duration;

use kv_index::Applied;
use tokio::time::Instant;

use super::PodEvents;
use super::counts::KvCount;
use super::frame::{Frame, Told};
use super::progress::Progress;
use super::replay::{Held, Replay, ReplayError};
use super::sources::{self, Target};
use super::status::SelfCheck;
use super::stream::{Lane, Stream, StreamError};
use super::trust::{Fate, Input, Machine, Orders, Trust};
use crate::backoff::Backoff;
use crate::pod::EngineHints;

/// The task's own state.
struct Task {
    pod: PodEvents,
    machine: Machine,
    target: Target,
    replay: Option<Replay>,
    /// The replay makes sure of a stream that is silent: what it tells should have come by itself.
    checking: bool,
    held: Held,
    progress: Progress,
    idle_at: Instant,
}

/// Something that a listening task hears.
enum Heard {
    Live(Result<Option<Frame>, StreamError>),
    Told(Result<Told, ReplayError>),
    Idle,
    Hints,
    Judged(SelfCheck),
}

/// Waits before a stream is opened again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Runs until it is aborted.
pub(super) async fn run(pod: PodEvents, target: Target, mut lane: Lane) {
    let idle_at = Instant::now() + pod.voice.quiet(pod.settings.idle.get());
    let mut task = Task {
        machine: Machine::new(target.replay.is_some()),
        pod,
        target,
        replay: None,
        checking: false,
        held: Held::default(),
        progress: Progress::default(),
        idle_at,
    };
    let mut backoff = BACKOFF;
    loop {
        match task.open(&mut lane).await {
            Ok(stream) => {
                backoff.reset();
                task.pod.status.counts.add(KvCount::Connects, 1);
                let ended = task.listen(stream).await;
                task.log("the stream of KV events ended", &ended);
                task.pod.voice.doubt();
                task.replay = None;
                task.held.take();
                let orders = task.machine.step(Input::Disconnected);
                task.obey(orders, None);
            }
            Err(error) => task.log("no stream of KV events", &error),
        }
        tokio::time::sleep(backoff.next()).await;
        task.look_again().await;
    }
}

// === impl Task ===

impl Task {
    /// Opens the stream; while that lasts, an idle time may pass.
    async fn open<'a>(&mut self, lane: &'a mut Lane) -> Result<Stream<'a>, StreamError> {
        let (publish, patience) = (self.target.publish, self.pod.settings.timeout.get());
        let opening = async {
            match publish {
                Some(publisher) => Stream::dial(publisher, patience).await,
                None => lane.open().await,
            }
        };
        tokio::pin!(opening);
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                () = tokio::time::sleep_until(self.idle_at) => self.idle(),
            }
        }
    }

    /// Listens until the stream ends; says why it did.
    async fn listen(&mut self, mut stream: Stream<'_>) -> StreamError {
        let mut hints = self.pod.hints.clone();
        let status = Arc::clone(&self.pod.status);
        status.forget_judgement();
        self.touch();
        let orders = self.machine.step(Input::Connected);
        self.obey(orders, None);
        loop {
            let heard = tokio::select! {
                frame = stream.next() => Heard::Live(frame),
                told = next_told(self.replay.as_mut()) => Heard::Told(told),
                () = tokio::time::sleep_until(self.idle_at) => Heard::Idle,
                Ok(()) = hints.changed() => Heard::Hints,
                self_check = status.judged() => Heard::Judged(self_check),
            };
            match heard {
                Heard::Live(Ok(Some(frame))) => {
                    self.touch();
                    self.live(frame);
                }
                Heard::Live(Ok(None)) => self.pod.status.counts.add(KvCount::Undecodable, 1),
                Heard::Live(Err(error)) => return error,
                Heard::Told(told) => {
                    if self.told(told) {
                        return StreamError::HungUp;
                    }
                }
                Heard::Idle => self.idle(),
                Heard::Hints => {
                    let hints = *hints.borrow_and_update();
                    self.hints(&hints);
                }
                Heard::Judged(self_check) => self.judged(self_check),
            }
        }
    }

    fn live(&mut self, frame: Frame) {
        let orders = self.machine.step(Input::Live(frame.arrival()));
        if orders.replay_from.is_some() || orders.drop_blocks {
            self.pod.status.counts.add(KvCount::Gaps, 1);
        }
        self.obey(orders, Some(frame));
        if self.replay.is_none() {
            self.pod.status.story_is_told();
        }
    }

    /// Takes a reply of the replay; says whether the stream must be opened anew, because what it
    /// should have brought came only when we asked.
    fn told(&mut self, told: Result<Told, ReplayError>) -> bool {
        let deaf = match told {
            Ok(Told::Batch(frame)) => {
                let orders = self.machine.step(Input::Replayed(frame.arrival()));
                let deaf = self.checking && orders.batch == Fate::Apply;
                self.obey(orders, Some(frame));
                return deaf;
            }
            Ok(Told::End) => {
                self.replay = None;
                let orders = self.machine.step(Input::ReplayEnded);
                self.obey(orders, None);
                false
            }
            Err(error) => {
                self.log("no replay of KV events", &error);
                self.pod.status.counts.add(KvCount::FailedReplays, 1);
                self.replay = None;
                let orders = self.machine.step(Input::ReplayFailed);
                self.obey(orders, None);
                false
            }
        };
        if self.replay.is_none() {
            self.checking = false;
            self.pod.status.story_is_told();
            for frame in self.held.take() {
                self.live(frame);
            }
        }
        deaf
    }

    fn idle(&mut self) {
        self.idle_at = self.next_idle();
        for input in [Input::Idle, Input::Retry] {
            let orders = self.machine.step(input);
            self.check(orders);
        }
    }

    fn hints(&mut self, hints: &EngineHints) {
        if self.progress.read(hints, Instant::now()) {
            let orders = self.machine.step(Input::Silent);
            self.check(orders);
        }
    }

    fn judged(&mut self, self_check: SelfCheck) {
        let input = match self_check {
            SelfCheck::Overpredicted => Input::Overpredicted,
            SelfCheck::Failing => Input::SelfCheckFailed,
            SelfCheck::Reconciled => Input::Reconciled,
        };
        let orders = self.machine.step(input);
        self.obey(orders, None);
    }

    fn check(&mut self, orders: Orders) {
        let asks = orders.replay_from.is_some();
        self.obey(orders, None);
        self.checking |= asks;
    }

    fn obey(&mut self, orders: Orders, frame: Option<Frame>) {
        let counts = &self.pod.status.counts;
        if orders.drop_blocks {
            counts.add(KvCount::Resets, 1);
            self.pod.sink.clear(self.pod.voice.slot);
        }
        if let Some(frame) = frame {
            if frame.batch.is_err() && orders.batch != Fate::Hold {
                counts.add(KvCount::Undecodable, 1);
            }
            match orders.batch {
                Fate::Apply => self.apply(&frame),
                Fate::Ignore => counts.add(KvCount::Duplicates, 1),
                Fate::Hold => {
                    if !self.held.push(frame, self.pod.settings.queue) {
                        counts.add(KvCount::Dropped, 1);
                    }
                }
            }
        }
        if let (Some(from), Some(publisher)) = (orders.replay_from, self.target.replay) {
            self.pod.status.counts.add(KvCount::Replays, 1);
            self.checking = false;
            let patience = self.pod.settings.timeout.get();
            self.replay = Some(Replay::start(from, publisher, patience));
        }
        self.publish_trust();
    }

    fn apply(&mut self, frame: &Frame) {
        let Ok(batch) = &frame.batch else { return };
        let slot = self.pod.voice.slot;
        let mut blocks = Applied::default();
        for event in &batch.events {
            blocks += self.pod.sink.apply(slot, event);
        }
        let status = &self.pod.status;
        status.applied(blocks);
        status.counts.add(KvCount::Batches, 1);
        status.counts.add(KvCount::Events, batch.events.len() as u64);
        status.counts.add(KvCount::Skipped, u64::from(batch.skipped.events + batch.skipped.fields));
        status.heard(frame.seq);
    }

    fn publish_trust(&self) {
        let trust = self.machine.trust();
        let before = self.pod.status.set_trust(trust);
        if before != trust {
            let pod = &self.pod.voice.pod;
            let due = self.machine.next_seq();
            let (from, to) = (before.word(), trust.word());
            if matches!(trust, Trust::Uncertain(_)) {
                tracing::warn!(pod = %pod.name, due, from, to, why = ?trust, "KV events");
            } else {
                // Also each time that a pod that was idle is asked whether it really was.
                tracing::debug!(pod = %pod.name, due, from, to, "KV events");
            }
        }
    }

    /// The pod may publish elsewhere after a restart.
    async fn look_again(&mut self) {
        let PodEvents { voice, client, settings, .. } = &self.pod;
        match sources::find(voice, client, settings).await {
            Ok(targets) => {
                if let Some(target) = voice.pick(&targets) {
                    self.target = target;
                    self.machine.set_replays(target.replay.is_some());
                }
            }
            Err(error) => self.log("the pod does not say where its KV events are", &error),
        }
    }

    /// Something was heard.
    fn touch(&mut self) {
        self.idle_at = self.next_idle();
        self.progress.heard();
    }

    fn next_idle(&self) -> Instant {
        Instant::now() + self.pod.voice.quiet(self.pod.settings.idle.get())
    }

    fn log(&self, what: &str, error: &dyn std::error::Error) {
        let pod = &self.pod.voice.pod;
        let cause = error.source().map(ToString::to_string);
        tracing::debug!(pod = %pod.name, %error, cause, "{what}");
    }
}

async fn next_told(replay: Option<&mut Replay>) -> Result<Told, ReplayError> {
    match replay {
        Some(replay) => replay.next().await,
        None => std::future::pending().await,
    }
}
