use std::{sync::Arc, time::Duration};

use router::tokenize::Tokenizer;

use super::{Engine, Step};
use crate::simulator::{
    assets,
    config::EngineConfig,
    language::Language,
    sequence::{Finish, Output, Prompt, RequestId},
};

fn tokenizer() -> Tokenizer {
    assets::tokenizer().expect("the embedded tokenizer loads")
}

fn engine(config: EngineConfig) -> Engine {
    let language = Language::of(&tokenizer()).expect("the embedded tokenizer has words");
    Engine::new(config, Arc::new(language))
}

fn prompt(first: u32, count: usize, max_tokens: usize) -> Prompt {
    let tokens = (first..).take(count).collect();
    Prompt { tokens, max_tokens, ignore_eos: true, ..Prompt::default() }
}

fn submit(engine: &mut Engine, prompt: Prompt) -> RequestId {
    engine.submit(prompt, Duration::ZERO).expect("no queue limit")
}

/// Steps until idle; every output in order, and the time it took.
fn run(engine: &mut Engine) -> (Vec<Output>, Duration) {
    let (mut outputs, mut now) = (Vec::new(), Duration::ZERO);
    while let Some(Step { duration, outputs: new, .. }) = engine.step(now) {
        now += duration;
        outputs.extend(new);
    }
    assert_eq!((engine.running(), engine.waiting()), (0, 0), "idle means nothing is left");
    assert!(engine.cache_usage() < f64::EPSILON, "an idle engine holds no blocks");
    (outputs, now)
}

fn tokens_of(outputs: &[Output], id: RequestId) -> Vec<u32> {
    outputs.iter().filter(|one| one.request == id).filter_map(|one| one.token).collect()
}

#[test]
fn the_second_193_token_prompt_hits_192_tokens() {
    let mut engine = engine(EngineConfig::default());
    submit(&mut engine, prompt(0, 193, 16));
    assert_eq!(run(&mut engine).0[0].cached_tokens, 0);
    submit(&mut engine, prompt(0, 193, 16));
    assert_eq!(run(&mut engine).0[0].cached_tokens, 192);
    assert_eq!(engine.stats().prefix_cache_queries, 386);
    assert_eq!(engine.stats().prefix_cache_hits, 192);
}

#[test]
fn thirty_raw_prompts_of_159_tokens_hit_4176_of_4770() {
    let mut engine = engine(EngineConfig::default());
    for _ in 0..30 {
        submit(&mut engine, prompt(0, 159, 16));
        run(&mut engine);
    }
    assert_eq!(engine.stats().prefix_cache_queries, 4770);
    assert_eq!(engine.stats().prefix_cache_hits, 4176);
}

#[test]
fn generated_tokens_fill_blocks_that_the_next_turn_reuses() {
    let mut engine = engine(EngineConfig::default());
    let id = submit(&mut engine, prompt(0, 20, 30));
    let answer = tokens_of(&run(&mut engine).0, id);
    let mut next = prompt(0, 20, 1);
    next.tokens.extend(&answer);
    next.tokens.extend(5000..5010);
    submit(&mut engine, next);
    // 20 + 29 computed (the last token's KV never is): 3 full blocks.
    assert_eq!(run(&mut engine).0[0].cached_tokens, 48);
}

#[test]
fn two_equal_prompts_in_one_step_share_their_blocks() {
    let mut engine = engine(EngineConfig::default());
    submit(&mut engine, prompt(0, 193, 2));
    let second = submit(&mut engine, prompt(0, 193, 2));
    let outputs = run(&mut engine).0;
    let of_second = outputs.iter().find(|one| one.request == second).expect("it ran");
    assert_eq!(of_second.cached_tokens, 192);
}

#[test]
fn a_warm_prompt_reaches_its_first_token_sooner() {
    let mut engine = engine(EngineConfig::default());
    submit(&mut engine, prompt(0, 193, 1));
    let cold = run(&mut engine).1;
    submit(&mut engine, prompt(0, 193, 1));
    let warm = run(&mut engine).1;
    assert_eq!(cold, Duration::from_secs_f64(193.0 / 20_000.0));
    assert_eq!(warm, Duration::from_secs_f64(1.0 / 20_000.0));
}

#[test]
fn a_long_prompt_is_prefilled_in_chunks_while_others_decode() {
    let config = EngineConfig { max_num_batched_tokens: 100, ..EngineConfig::default() };
    let mut engine = engine(config);
    let short = submit(&mut engine, prompt(0, 10, 20));
    engine.step(Duration::ZERO).expect("the short prompt runs");
    let long = submit(&mut engine, prompt(1000, 300, 1));
    let mut before_long = 0;
    while let Some(step) = engine.step(Duration::ZERO) {
        if step.outputs.iter().any(|output| output.request == long) {
            break;
        }
        before_long += step.outputs.iter().filter(|output| output.request == short).count();
    }
    // 99 + 99 + 99 tokens beside one decode each leave 3 for a fourth step.
    assert_eq!(before_long, 3);
}

#[test]
fn steps_grow_longer_with_the_batch() {
    let mut engine = engine(EngineConfig::default());
    for n in 0..10 {
        submit(&mut engine, prompt(n * 100, 5, 3));
    }
    engine.step(Duration::ZERO).expect("prefill");
    let step = engine.step(Duration::ZERO).expect("decode");
    assert_eq!(step.duration, Duration::from_secs_f64(0.003), "2 ms + 10 × 0.1 ms");
}

#[test]
fn more_sequences_than_the_limit_wait() {
    let mut engine = engine(EngineConfig { max_num_seqs: 2, ..EngineConfig::default() });
    for n in 0..3 {
        submit(&mut engine, prompt(n * 100, 5, 2));
    }
    engine.step(Duration::ZERO).expect("runs");
    assert_eq!((engine.running(), engine.waiting()), (2, 1));
    assert_eq!(run(&mut engine).0.iter().filter(|one| one.finish.is_some()).count(), 3);
}

#[test]
fn a_full_queue_refuses() {
    let config = EngineConfig { max_num_queued_reqs: Some(1), ..EngineConfig::default() };
    let mut engine = engine(config);
    submit(&mut engine, prompt(0, 5, 2));
    assert!(engine.submit(prompt(0, 5, 2), Duration::ZERO).is_err());
    assert_eq!(engine.stats().rejections, 1);
}

#[test]
fn without_memory_the_youngest_is_preempted_and_still_finishes() {
    let config = EngineConfig { num_blocks: 8, ..EngineConfig::default() };
    let mut engine = engine(config);
    let first = submit(&mut engine, prompt(0, 60, 60));
    let second = submit(&mut engine, prompt(1000, 60, 60));
    let (outputs, _) = run(&mut engine);
    assert_eq!(tokens_of(&outputs, first).len(), 60);
    assert_eq!(tokens_of(&outputs, second).len(), 60);
    assert!(engine.stats().preemptions > 0);
    assert_eq!(engine.stats().prefix_cache_queries, 120, "a second lookup is not counted");
}

#[test]
fn cancelling_frees_blocks_and_place() {
    let mut engine = engine(EngineConfig { max_num_seqs: 1, ..EngineConfig::default() });
    let running = submit(&mut engine, prompt(0, 50, 1000));
    let waiting = submit(&mut engine, prompt(0, 50, 1000));
    engine.step(Duration::ZERO).expect("runs");
    engine.cancel(waiting, false, Duration::ZERO);
    engine.cancel(running, false, Duration::ZERO);
    assert_eq!((engine.running(), engine.waiting()), (0, 0));
    assert!(engine.cache_usage() < f64::EPSILON);
    assert_eq!(engine.stats().aborted, 2);
    assert!(engine.step(Duration::ZERO).is_none());
}

#[test]
fn the_same_prompt_gets_the_same_answer_and_a_cut_answer_goes_on_unchanged() {
    let mut engine = engine(EngineConfig::default());
    let whole = submit(&mut engine, prompt(0, 40, 30));
    let whole = tokens_of(&run(&mut engine).0, whole);
    let again = submit(&mut engine, prompt(0, 40, 30));
    assert_eq!(tokens_of(&run(&mut engine).0, again), whole);
    let mut rest = prompt(0, 40, 20);
    rest.tokens.extend(&whole[..10]);
    let rest = submit(&mut engine, rest);
    assert_eq!(tokens_of(&run(&mut engine).0, rest), whole[10..]);
}

#[test]
fn an_answer_ends_by_itself_unless_told_to_ignore_that() {
    let mut engine = engine(EngineConfig::default());
    let free = Prompt { ignore_eos: false, ..prompt(0, 40, 5000) };
    submit(&mut engine, free);
    let outputs = run(&mut engine).0;
    assert_eq!(outputs.last().and_then(|last| last.finish), Some(Finish::End));
    submit(&mut engine, prompt(0, 40, 500));
    let outputs = run(&mut engine).0;
    assert_eq!(outputs.len(), 500);
    assert_eq!(outputs.last().and_then(|last| last.finish), Some(Finish::Length));
}

#[test]
fn a_stop_token_ends_the_answer() {
    let mut engine = engine(EngineConfig::default());
    let plain = submit(&mut engine, prompt(0, 40, 30));
    let answer = tokens_of(&run(&mut engine).0, plain);
    let stop = answer[5];
    let at = answer.iter().position(|token| *token == stop).expect("it is there");
    submit(&mut engine, Prompt { stop_token_ids: vec![stop], ..prompt(0, 40, 30) });
    let outputs = run(&mut engine).0;
    assert_eq!(outputs.len(), at + 1);
    assert_eq!(outputs[at].finish, Some(Finish::StopToken(stop)));
}
