//! Policies in virtual time: the pods keep the simulator's rules, and the tables keep theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use loadtest::cli::{Cli, Command};
use loadtest::policies::{self, Job, Outcome, Output, Pod, Score};
use loadtest::simulator::{Engine, EngineConfig, Language, Prompt, assets};
use loadtest::workload::mix;

/// Runs the command with these arguments.
fn simulate(arguments: &str) -> Vec<Outcome> {
    let line = format!("loadtest simulate-policies {arguments}");
    let cli = Cli::try_parse_from(line.split_whitespace()).expect("the arguments are right");
    let Command::SimulatePolicies(options) = cli.command else { unreachable!("it was named") };
    policies::run(&options, &mut Vec::new()).expect("nothing is read from outside")
}

fn score<'a>(outcome: &'a Outcome, policy: &str) -> &'a Score {
    outcome.policies.iter().find(|score| score.policy == policy).expect("it was asked for")
}

const BLOCK: usize = 16;

/// Few blocks, so that there is eviction, yet enough for six sequences: a preempted one finds its
/// own answer again in the engine, and here only what has a name.
fn small() -> EngineConfig {
    EngineConfig {
        num_blocks: 190,
        max_num_seqs: 6,
        max_num_batched_tokens: 256,
        ..EngineConfig::default()
    }
}

/// When each request is sent and what it is: its time, its blocks, prompt and answer tokens.
fn requests(seed: u64) -> Vec<(Duration, Job)> {
    let mut time = Duration::ZERO;
    let request = |number: usize| {
        let roll = |part: u64, below: u64| mix([seed, number as u64, part]) % below;
        time += Duration::from_nanos(roll(0, 30_000_003));
        let prompt_tokens = 17 + usize::try_from(roll(1, 400)).expect("it is small");
        let text = u32::try_from(roll(2, 5)).expect("it is small");
        let names = (0..prompt_tokens / BLOCK).map(|at| {
            // Texts part after three blocks, if they share those.
            if at < 3 {
                at.try_into().unwrap_or(0)
            } else {
                100 * (1 + text) + u32::try_from(at).unwrap_or(0)
            }
        });
        let job = Job {
            request: number,
            blocks: names.chain([u32::MAX]).collect::<Vec<u32>>().into(),
            prompt_tokens,
            output_tokens: 1 + usize::try_from(roll(3, 60)).expect("it is small"),
        };
        (time, job)
    };
    (0..200).map(request).collect()
}

/// Per request: cached tokens, and when the first and the last token came.
type Told = HashMap<usize, (usize, Duration, Duration)>;

fn by_pod(requests: &[(Duration, Job)]) -> Told {
    let (mut pod, mut told) = (Pod::new(small()), Told::new());
    let mut coming = requests.iter().peekable();
    loop {
        let next = coming.peek().map(|(time, _)| *time);
        let (end, next) = match (pod.due(), next) {
            (Some(end), next) if next.is_none_or(|next| end <= next) => (Some(end), None),
            (_, Some(next)) => (None, Some(next)),
            _ => return told,
        };
        if let Some(next) = next {
            let (_, job) = coming.next().expect("it was peeked at");
            pod.submit(job.clone(), next);
        }
        let Some(end) = end else { continue };
        let mut outputs = Vec::new();
        pod.advance(&mut outputs);
        for output in outputs {
            match output {
                Output::First { request, cached_tokens } => {
                    told.insert(request, (cached_tokens, end, end));
                }
                Output::Last { request } => told.get_mut(&request).expect("it has begun").2 = end,
            }
        }
    }
}

fn by_engine(requests: &[(Duration, Job)]) -> Told {
    let language =
        Language::of(&assets::tokenizer().expect("it is embedded")).expect("it has words");
    let mut engine = Engine::new(small(), Arc::new(language));
    let (mut told, mut numbers) = (Told::new(), HashMap::new());
    let mut coming = requests.iter().peekable();
    let mut now = Duration::ZERO;
    loop {
        while let Some((_, job)) = coming.next_if(|(time, _)| *time <= now) {
            let block = |name: &u32| {
                let first = name * 16;
                (0..16).map(move |at| first + at)
            };
            let tokens = job.blocks.iter().take(job.blocks.len() - 1).flat_map(block);
            // What is left of a block is its own.
            let own = (0..).map(|at| 1_000_000 + 16 * u32::try_from(job.request).unwrap_or(0) + at);
            let prompt = Prompt {
                tokens: tokens.chain(own).take(job.prompt_tokens).collect(),
                max_tokens: job.output_tokens,
                ignore_eos: true,
                ..Prompt::default()
            };
            numbers.insert(engine.submit(prompt, now).expect("no limit"), job.request);
        }
        let Some(step) = engine.step(now) else {
            let Some((time, _)) = coming.peek() else { return told };
            now = *time;
            continue;
        };
        now += step.duration;
        for output in step.outputs {
            let entry = told.entry(numbers[&output.request]);
            entry.or_insert((output.cached_tokens, now, now)).2 = now;
        }
    }
}

#[test]
fn a_pod_in_blocks_does_what_the_engine_does_in_tokens() {
    for seed in 0..4 {
        let requests = requests(seed);
        let (pod, engine) = (by_pod(&requests), by_engine(&requests));
        assert_eq!(pod.len(), requests.len());
        for number in 0..requests.len() {
            assert_eq!(pod[&number], engine[&number], "request {number} of seed {seed}");
        }
        assert!(pod.values().any(|(cached_tokens, ..)| *cached_tokens > 0), "something is reused");
    }
}

#[test]
fn the_same_seed_gives_the_same_table() {
    let arguments = "--share 0.02 --workload conversation --workload agentic --workload gateways-4";
    let (first, second) = (simulate(arguments), simulate(arguments));
    assert_eq!(first, second);
    assert_ne!(first, simulate(&format!("{arguments} --seed 2")), "and another another");
}

#[test]
fn documents_are_reused_as_by_one_shared_cache_on_pods_that_are_equally_busy() {
    for outcome in simulate("--workload documents-30 --workload documents-60 --policy warm") {
        let warm = score(&outcome, "warm");
        assert!(warm.of_shared >= 0.97 && warm.max_over_mean <= 1.10, "{warm:?}");
    }
}

#[test]
fn paced_conversations_under_one_prompt_do_not_pile_on_one_pod() {
    let [outcome] = &*simulate("--workload paced --policy warm --policy lmetric") else {
        unreachable!("one workload was named")
    };
    let (warm, lmetric) = (score(outcome, "warm"), score(outcome, "lmetric"));
    assert!(warm.reuse >= 0.88 && warm.max_over_mean <= 1.10, "{warm:?}");
    assert!(lmetric.max_over_mean > 2.9, "nothing is in flight, so it sees no load: {lmetric:?}");
}
