use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::simulator::{
    assets,
    config::EngineConfig,
    engine::Engine,
    fault::Faults,
    language::Language,
    sequence::{Finish, Prompt},
};

/// A driver with its task running on the paused clock.
fn start() -> (Driver, JoinSet<()>) {
    let tokenizer = assets::tokenizer().expect("the embedded tokenizer loads");
    let language = Language::of(&tokenizer).expect("it has words");
    let engine = Engine::new(EngineConfig::default(), Arc::new(language));
    let driver = Driver::new(engine, None, Faults::new(CancellationToken::new()));
    let mut tasks = JoinSet::new();
    tasks.spawn(driver.clone().run(CancellationToken::new()));
    (driver, tasks)
}

fn prompt(tokens: u32, max_tokens: usize) -> Prompt {
    let tokens = (0..tokens).collect();
    Prompt { tokens, max_tokens, ignore_eos: true, ..Prompt::default() }
}

#[tokio::test(start_paused = true)]
async fn tokens_arrive_when_their_steps_end() {
    let (driver, _tasks) = start();
    let begun = Instant::now();
    let mut ticket = driver.submit(prompt(193, 11)).expect("no limit");
    ticket.next().await.expect("a first token");
    // 193 tokens at 20,000 a second are 9.65 ms; timers round up to the next millisecond.
    assert_eq!(begun.elapsed().as_millis(), 10);
    while let Some(output) = ticket.next().await {
        if output.finish == Some(Finish::Length) {
            break;
        }
    }
    // Ten more steps of 2.1 ms: rounding does not add up.
    assert_eq!(begun.elapsed().as_millis(), 31);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_ticket_frees_the_engine() {
    let (driver, _tasks) = start();
    let mut ticket = driver.submit(prompt(50, 1000)).expect("no limit");
    ticket.next().await.expect("a first token");
    assert_eq!(driver.with_engine(|engine| engine.running()), 1);
    drop(ticket);
    assert_eq!(driver.with_engine(|engine| engine.running()), 0);
    assert!(driver.with_engine(|engine| engine.cache_usage()) < f64::EPSILON);
    assert!(driver.0.state.lock().sinks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_finished_request_leaves_no_sink_and_is_not_an_abort() {
    let (driver, _tasks) = start();
    let mut ticket = driver.submit(prompt(5, 3)).expect("no limit");
    let mut outputs = 0;
    while ticket.next().await.is_some() {
        outputs += 1;
    }
    drop(ticket);
    assert_eq!(outputs, 3);
    assert_eq!(driver.with_engine(|engine| engine.stats().aborted), 0);
    assert!(driver.0.state.lock().sinks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stops_ends_its_tickets() {
    let (driver, mut tasks) = start();
    let mut ticket = driver.submit(prompt(50, 1000)).expect("no limit");
    ticket.next().await.expect("a first token");
    tasks.shutdown().await;
    let waited = tokio::time::timeout(Duration::from_secs(1), async {
        while ticket.next().await.is_some() {}
    });
    assert!(waited.await.is_ok(), "no output will come, so the wait must end");
}
