//! What a fleet of pods would say: chains with shared beginnings, stored 16 blocks at a time.

/// Tokens per block.
pub const BLOCK_TOKENS: usize = 16;
/// Blocks that a pod reports at once.
const BLOCKS_AT_ONCE: usize = 16;
/// Pods at work at the same time.
const AT_ONCE: usize = 64;

/// Which pods hold which chains.
pub struct Fleet {
    pub pods: usize,
    pub chains: Vec<Chain>,
}

/// One prompt: blocks by content.
pub struct Chain {
    /// A block is known by a number that also says what is in it; equal numbers in equal places
    /// are one block only behind equal blocks.
    pub blocks: Vec<u64>,
    pub holders: Vec<usize>,
}

/// One store, as a pod would report it.
pub struct Store {
    pub pod: usize,
    pub parent: Option<u64>,
    /// The engine's names.
    pub names: Vec<u64>,
    pub tokens: Vec<u32>,
}

/// A generator of numbers.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

pub fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The 16 token ids of a block.
pub fn tokens(block: u64) -> impl Iterator<Item = u32> {
    (0..BLOCK_TOKENS as u64).map(move |at| (mix(block.wrapping_mul(31) + at) % 150_000) as u32)
}

impl Chain {
    /// The engine's name for each block: a hash of everything before it.
    pub fn names(&self) -> impl Iterator<Item = u64> {
        self.blocks.iter().scan(1, |name, block| {
            *name = mix(*name ^ mix(*block));
            Some(*name)
        })
    }
}

impl Fleet {
    /// 8 system prompts of 64 blocks, chains of 560 blocks, 1 to `most` holders each, until there
    /// are `holder_blocks`.
    pub fn shared_prompts(holder_blocks: usize, pods: usize, most: usize) -> Self {
        let mut dice = Dice(1);
        let (mut chains, mut total) = (Vec::new(), 0);
        while total < holder_blocks {
            let system = dice.below(8) as u64;
            let own = dice.next();
            let tail = (0..496).map(|at| mix(own + at));
            let blocks = (0..64).map(|at| mix(system * 1000 + at)).chain(tail).collect();
            let mut holders: Vec<usize> = Vec::new();
            let count = 1 + dice.below(most);
            while holders.len() < count {
                let pod = dice.below(pods);
                if !holders.contains(&pod) {
                    holders.push(pod);
                }
            }
            total += 496 * count;
            chains.push(Chain { blocks, holders });
        }
        Self { pods, chains }
    }

    /// The Mooncake conversation trace: 512-token ids, each 32 blocks of 16; every request goes to
    /// the pod that its first ids choose, a tenth of them to another one.
    pub fn trace(path: &str, pods: usize) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let mut dice = Dice(2);
        let mut chains = Vec::new();
        for line in text.lines() {
            let Some((_, ids)) = line.split_once("\"hash_ids\":") else { continue };
            let ids = ids.trim_start().trim_start_matches('[').split(']').next().unwrap_or("");
            let ids: Vec<u64> = ids.split(',').filter_map(|id| id.trim().parse().ok()).collect();
            let blocks: Vec<u64> =
                ids.iter().flat_map(|id| (0..32).map(move |at| mix(id * 32 + at))).collect();
            if blocks.is_empty() {
                continue;
            }
            let key = mix(ids.get(1).copied().unwrap_or(ids[0]));
            let stray = dice.below(10) == 0;
            let pod = if stray { dice.below(pods) } else { (key % pods as u64) as usize };
            chains.push(Chain { blocks, holders: vec![pod] });
        }
        Ok(Self { pods, chains })
    }

    /// Every store, in an order in which `AT_ONCE` chains grow side by side. A pod does not report
    /// again what it holds.
    pub fn stores(&self) -> impl Iterator<Item = Store> {
        let mut waiting = self
            .chains
            .iter()
            .enumerate()
            .flat_map(|(chain, it)| it.holders.iter().map(move |pod| (chain, *pod)));
        let mut active: Vec<(usize, usize, usize)> = Vec::new();
        let mut held = std::collections::HashSet::new();
        let mut turn = 0;
        std::iter::from_fn(move || {
            loop {
                while active.len() < AT_ONCE
                    && let Some((chain, pod)) = waiting.next()
                {
                    // A pod works on one chain after the other where they share a beginning.
                    let names = self.chains[chain].names().take_while(|name| held.contains(&(pod, *name)));
                    active.push((chain, pod, names.count()));
                }
                if active.is_empty() {
                    return None;
                }
                turn = (turn + 1) % active.len();
                let (chain, pod, at) = active[turn];
                let blocks = &self.chains[chain].blocks;
                let names: Vec<u64> = self.chains[chain].names().take(at + BLOCKS_AT_ONCE).collect();
                if at >= blocks.len() || names[at..].iter().all(|name| held.contains(&(pod, *name))) {
                    if at >= blocks.len() {
                        active.swap_remove(turn);
                    } else {
                        active[turn].2 = names.len();
                    }
                    continue;
                }
                active[turn].2 = names.len();
                let tokens = blocks[at..names.len()].iter().flat_map(|block| tokens(*block)).collect();
                held.extend(names[at..].iter().map(|name| (pod, *name)));
                let parent = at.checked_sub(1).map(|before| names[before]);
                return Some(Store { pod, parent, names: names[at..].to_vec(), tokens });
            }
        })
    }
}
