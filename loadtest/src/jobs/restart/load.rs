//! The load that a restart happens under: a closed loop of streams, and what came of them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Options, Toll};
use crate::client::{Call, CallOptions, Client, Message};
use crate::jobs::JobError;

/// Streams that run until [`Load::end`]; dropped, they are aborted.
pub(super) struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    gateway: Client,
    deadline: std::time::Duration,
    /// What is asked, and what has to be answered if that is known.
    prompts: Vec<(Call, Option<String>)>,
    seen: Mutex<Seen>,
    /// How many requests have ended.
    count: watch::Sender<u64>,
    stop: tokio_util::sync::CancellationToken,
}

#[derive(Default)]
struct Seen {
    toll: Toll,
    /// Whole answers by pod.
    served: HashMap<String, u64>,
}

// === impl Load ===

impl Load {
    /// Asks every prompt once, for the answers that have to come again, and starts the streams.
    pub(super) async fn start(options: &Options, gateway: &Client) -> Result<Self, JobError> {
        let deadline = options.target.deadline();
        let mut prompts = Vec::new();
        for number in 0..options.prompts.max(1) {
            let call = call(options, number);
            let answer = gateway.send(&call, deadline).await;
            if let Some(failure) = answer.failure {
                let (path, got) = (call.path, failure.to_string());
                return Err(JobError::Unhealthy { path, got, gateway: gateway.base_url().into() });
            }
            prompts.push((call, (options.prompts > 0).then_some(answer.text)));
        }
        let shared = Arc::new(Shared {
            gateway: gateway.clone(),
            deadline,
            prompts,
            seen: Mutex::default(),
            count: watch::Sender::new(0),
            stop: tokio_util::sync::CancellationToken::new(),
        });
        let mut workers = JoinSet::new();
        for number in 0..options.concurrency.max(1) {
            workers.spawn(Arc::clone(&shared).work(number));
        }
        Ok(Self { shared, workers })
    }

    /// Requests that have ended.
    pub(super) fn count(&self) -> u64 {
        *self.shared.count.borrow()
    }

    /// Waits until so many have.
    pub(super) async fn until(&self, enough: impl FnMut(&u64) -> bool) {
        let mut enough = enough;
        let waited = self.shared.count.subscribe();
        // The sender lives as long as this.
        drop({ waited }.wait_for(|count| enough(count)).await);
    }

    /// Waits until the gateway has sent a request to this pod again and its answer was whole.
    pub(super) async fn until_served_by(&self, pod: &str) {
        let served = || self.shared.seen.lock().served.get(pod).copied().unwrap_or_default();
        let before = served();
        self.until(|_| served() > before).await;
    }

    /// Lets the streams end and returns what was seen.
    pub(super) async fn end(mut self) -> Result<Toll, JobError> {
        self.shared.stop.cancel();
        while let Some(ended) = self.workers.join_next().await {
            ended?;
        }
        Ok(std::mem::take(&mut self.shared.seen.lock().toll))
    }
}

// === impl Shared ===

impl Shared {
    async fn work(self: Arc<Self>, first: usize) {
        for number in first.. {
            if self.stop.is_cancelled() {
                return;
            }
            let (call, expected) = &self.prompts[number % self.prompts.len()];
            let answer = self.gateway.send(call, self.deadline).await;
            {
                let mut seen = self.seen.lock();
                seen.toll.add(&answer, expected.as_deref());
                if let (None, Some(pod)) = (&answer.failure, answer.upstream()) {
                    *seen.served.entry(pod.to_owned()).or_default() += 1;
                }
            }
            self.count.send_modify(|count| *count += 1);
        }
    }
}

fn call(options: &Options, number: usize) -> Call {
    let sampling = CallOptions {
        max_tokens: options.max_tokens,
        temperature: Some(0.0),
        ignore_eos: true,
        stream: true,
        ..CallOptions::default()
    };
    let text = format!("Prompt {number}. {}", crate::workload::PROMPT);
    Call::chat(&options.target.model_id, &[Message::user(text)], &sampling)
}
