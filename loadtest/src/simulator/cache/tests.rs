use super::{BlockCache, CacheEvent, Chain};

fn tokens(first: u32, count: usize) -> Vec<u32> {
    (first..).take(count).collect()
}

/// Runs a whole prompt through the cache and leaves it there, unused. Returns reused blocks.
fn visit(cache: &mut BlockCache, prompt: &[u32]) -> usize {
    let chain = hold(cache, prompt);
    let reused = chain.reused_blocks();
    cache.release(chain);
    reused
}

fn hold(cache: &mut BlockCache, prompt: &[u32]) -> Chain {
    let mut chain = cache.begin("", prompt);
    assert!(cache.grow(&mut chain, prompt.len()), "the prompt fits");
    cache.commit(&mut chain, prompt);
    chain
}

#[test]
fn a_prompt_of_193_tokens_reuses_nothing_then_12_blocks() {
    let mut cache = BlockCache::new(16, 100);
    let prompt = tokens(0, 193);
    assert_eq!(visit(&mut cache, &prompt), 0);
    assert_eq!(visit(&mut cache, &prompt), 12);
}

#[test]
fn the_last_token_is_always_computed() {
    let mut cache = BlockCache::new(16, 100);
    let prompt = tokens(0, 32);
    visit(&mut cache, &prompt);
    assert_eq!(visit(&mut cache, &prompt), 1, "floor((32 - 1) / 16)");
    assert_eq!(visit(&mut cache, &tokens(0, 33)), 2);
}

#[test]
fn a_block_is_known_by_its_whole_prefix() {
    let mut cache = BlockCache::new(4, 100);
    visit(&mut cache, &[1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 0]);
    assert_eq!(visit(&mut cache, &[9, 9, 9, 9, 2, 2, 2, 2, 3, 3, 3, 3, 0]), 0);
    assert_eq!(visit(&mut cache, &[1, 1, 1, 1, 9, 9, 9, 9, 3, 3, 3, 3, 0]), 1);
}

#[test]
fn another_salt_shares_nothing() {
    let mut cache = BlockCache::new(4, 100);
    let prompt = tokens(0, 9);
    visit(&mut cache, &prompt);
    let chain = cache.begin("tenant-A", &prompt);
    assert_eq!(chain.reused_blocks(), 0);
}

#[test]
fn the_tail_of_a_chain_is_evicted_before_its_beginning() {
    let mut cache = BlockCache::new(4, 4);
    let prompt = tokens(0, 17);
    let mut chain = cache.begin("", &prompt);
    assert!(cache.grow(&mut chain, 16));
    cache.commit(&mut chain, &prompt[..16]);
    cache.release(chain);
    visit(&mut cache, &tokens(100, 8));
    assert_eq!(cache.begin("", &prompt).reused_blocks(), 2, "the first two of four are left");
}

#[test]
fn the_least_recently_used_chain_goes_first() {
    let mut cache = BlockCache::new(4, 6);
    let (old, kept) = (tokens(0, 9), tokens(100, 9));
    visit(&mut cache, &old);
    visit(&mut cache, &kept);
    assert_eq!(visit(&mut cache, &old), 2);
    assert_eq!(visit(&mut cache, &kept), 2);
    // Three blocks are needed: the unfilled tail of each chain, then `old`'s second block.
    visit(&mut cache, &tokens(200, 9));
    assert_eq!(cache.begin("", &kept).reused_blocks(), 2);
    assert!(cache.begin("", &old).reused_blocks() < 2);
}

#[test]
fn blocks_of_a_running_sequence_are_never_taken() {
    let mut cache = BlockCache::new(4, 3);
    let running = hold(&mut cache, &tokens(0, 8));
    let mut other = cache.begin("", &tokens(100, 8));
    assert!(!cache.grow(&mut other, 8), "one block is left, two are needed");
    assert_eq!(cache.free_blocks(), 1, "a refusal changes nothing");
    cache.release(running);
    assert!(cache.grow(&mut other, 8));
}

#[test]
fn everything_comes_back() {
    let mut cache = BlockCache::new(4, 8);
    let first = hold(&mut cache, &tokens(0, 12));
    let second = hold(&mut cache, &tokens(0, 12));
    assert_eq!(second.reused_blocks(), 2);
    assert!((cache.usage() - 0.5).abs() < 1e-9, "3 blocks and one more: {}", cache.usage());
    cache.release(first);
    cache.release(second);
    assert_eq!(cache.free_blocks(), 8);
}

#[test]
fn a_cleared_cache_has_no_hits() {
    let mut cache = BlockCache::new(4, 8);
    let prompt = tokens(0, 12);
    visit(&mut cache, &prompt);
    cache.clear();
    assert_eq!(visit(&mut cache, &prompt), 0);
}

/// What a listener holds who believes every event.
fn listen(held: &mut Vec<u64>, events: Vec<CacheEvent>) {
    for event in events {
        match event {
            CacheEvent::Stored { keys, .. } => held.extend(keys),
            CacheEvent::Removed(key) => {
                let at = held.iter().position(|one| *one == key);
                held.swap_remove(at.expect("what is removed was stored"));
            }
            CacheEvent::Cleared => held.clear(),
        }
    }
}

#[test]
fn who_believes_every_event_holds_what_the_cache_holds() {
    let mut cache = BlockCache::new(4, 12);
    cache.record_events();
    let mut held = Vec::new();
    let mut running = Vec::new();
    for round in 0..200_u32 {
        let first = [0, 0, 100, 300][round as usize % 4];
        let len = 1 + (round as usize * 7) % 23;
        let mut chain = cache.begin("", &tokens(first, len));
        if cache.grow(&mut chain, len) {
            cache.commit(&mut chain, &tokens(first, len));
            running.push(chain);
        } else {
            cache.release(chain);
        }
        if round % 3 == 0 || running.len() > 2 {
            running.drain(..).for_each(|chain| cache.release(chain));
        }
        if round % 37 == 0 {
            cache.clear();
        }
        listen(&mut held, cache.take_events());
        held.sort_unstable();
        assert_eq!(held, cache.cached_keys(), "round {round}");
    }
}

#[test]
fn a_stored_run_names_its_parent_and_all_its_tokens() {
    let mut cache = BlockCache::new(4, 12);
    cache.record_events();
    let mut chain = cache.begin("salt", &tokens(0, 13));
    assert!(cache.grow(&mut chain, 13), "there is room");
    cache.commit(&mut chain, &tokens(0, 5));
    cache.commit(&mut chain, &tokens(0, 13));
    let events = cache.take_events();
    let [CacheEvent::Stored { keys: first, parent: None, .. }, then] = &events[..] else {
        unreachable!("two runs: {events:?}")
    };
    let CacheEvent::Stored { keys, parent, tokens: run, salt } = then else {
        unreachable!("a run: {then:?}")
    };
    assert_eq!((keys.len(), *parent, &**salt), (2, Some(first[0]), "salt"));
    assert_eq!(*run, tokens(4, 8));
    cache.release(chain);
}
