//! Plays the sessions: a closed loop in the shuffled order, second turns waiting for first answers.

use std::collections::BTreeMap;

use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::oneshot;

use super::super::JobError;
use super::record::{self, Records};
use super::{NamedTarget, Options, Sums};
use crate::client::{Answer, Call, CallOptions, Client, Message};
use crate::workload::{Step, TokenRatio, Turn, mix, prose};

/// One request, and what ties a session's two turns together.
struct Task {
    step: Step,
    link: Link,
}

/// The first turn hands its answer to the second, which cannot begin without it.
enum Link {
    Gives(oneshot::Sender<String>),
    Takes(oneshot::Receiver<String>),
}

struct Player<'a> {
    options: &'a Options,
    client: Client,
    system: Option<Message>,
    documents: Vec<String>,
    name: String,
}

/// Sends everything to one gateway. `run` makes its documents its own: pods that other gateways
/// or runs have used are cold for it.
pub(super) async fn play(
    options: &Options,
    target: &NamedTarget,
    run: u64,
    records: &mut Option<Records>,
) -> Result<Sums, JobError> {
    let client = options.target.client_for(&target.url)?;
    let ratio = TokenRatio::measure(&client, &options.target.model_id).await;
    let words = ratio.words(options.document_tokens);
    let documents =
        (0..u64::from(options.documents)).map(|document| prose(mix([run, document]), words));
    let system = (options.shared_tokens > 0)
        .then(|| Message::system(prose(mix([run, u64::MAX]), ratio.words(options.shared_tokens))));
    let documents = documents.collect();
    let player = Player { options, client, system, documents, name: target.name.clone() };
    // Tasks start in order, so a second turn that waits has its first turn in flight or done.
    let width = usize::try_from(options.concurrency).unwrap_or(usize::MAX);
    let mut answers = stream::iter(tasks(options))
        .map(|task| {
            let step = task.step;
            player.play(task).map(move |answer| (step, answer))
        })
        .buffer_unordered(width);
    let mut sums = Sums::default();
    while let Some((step, answer)) = answers.next().await {
        sums.count(&answer);
        if let Some(records) = records.as_mut() {
            record::write(records, &target.name, step, &answer)?;
        }
    }
    Ok(sums)
}

fn tasks(options: &Options) -> Vec<Task> {
    let mut waiting = BTreeMap::new();
    let steps = options.shape().steps(options.seed).into_iter();
    let link = |step: Step| match step.turn {
        Turn::First => {
            let (give, take) = oneshot::channel();
            waiting.insert(step.session, take);
            Task { step, link: Link::Gives(give) }
        }
        Turn::Second => {
            let take = waiting.remove(&step.session);
            let take = take.expect("a session's first turn comes before its second");
            Task { step, link: Link::Takes(take) }
        }
    };
    steps.map(link).collect()
}

// === impl Player ===

impl Player<'_> {
    async fn play(&self, task: Task) -> Answer {
        let Task { step, link } = task;
        let document = usize::try_from(step.document).unwrap_or(usize::MAX);
        let document = self.documents.get(document).map_or("", String::as_str);
        let first = Message::user(format!("{document}\n\nWhat should we do about this first?"));
        match link {
            Link::Gives(give) => {
                let answer = self.send(step, &[first]).await;
                // The receiver is gone only when the whole job is: nobody needs the text then.
                if give.send(answer.text.clone()).is_err() {
                    tracing::debug!(session = step.session, "the second turn is not waiting");
                }
                answer
            }
            Link::Takes(take) => {
                let said = take.await.unwrap_or_default();
                let again = Message::user("Explain the reason for this answer.");
                self.send(step, &[first, Message::assistant(said), again]).await
            }
        }
    }

    async fn send(&self, step: Step, messages: &[Message]) -> Answer {
        let messages: Vec<Message> = self.system.iter().chain(messages).cloned().collect();
        let sampling = CallOptions {
            max_tokens: self.options.output_tokens,
            temperature: Some(0.0),
            stream: true,
            ..CallOptions::default()
        };
        let session = format!("documents-{}-{}", self.name, step.session);
        let call = Call::chat(&self.options.target.model_id, &messages, &sampling)
            .with_header("x-session-id", &session);
        self.client.send(&call, self.options.target.deadline()).await
    }
}
