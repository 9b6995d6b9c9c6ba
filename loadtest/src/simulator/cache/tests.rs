use super::{BlockCache, Chain};

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
