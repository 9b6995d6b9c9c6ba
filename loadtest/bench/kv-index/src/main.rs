//! The exact KV index beside its peers: speed, memory and truth, in one run.
//!
//! `kv-index-bench [HOLDER_BLOCKS] [SHAPE...]` with the shapes `rss`, `a`, `b` and `trace` (all of
//! them unless some are named); `TRACE=path` is the Mooncake conversation trace.

mod arms;
mod fleet;
mod measure;

use arms::{Arm, Dynamo, Exact, Smg};
use fleet::Fleet;
use measure::{Figures, measure};

#[global_allocator]
static MEMORY: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

fn main() {
    let mut args = std::env::args().skip(1);
    let holder_blocks = args.next().and_then(|n| n.parse().ok()).unwrap_or(12_000_000);
    let shapes: Vec<String> = args.collect();
    let wants = |shape: &str| shapes.is_empty() || shapes.iter().any(|wanted| wanted == shape);
    if wants("rss") {
        // First, while the process has nothing to reuse.
        rss(holder_blocks.min(4_000_000));
    }
    if wants("a") {
        compare("a", &Fleet::shared_prompts(holder_blocks, 64, 4));
    }
    if wants("b") {
        compare("b", &Fleet::shared_prompts(holder_blocks, 256, 32));
    }
    if let Ok(path) = std::env::var("TRACE")
        && wants("trace")
    {
        match Fleet::trace(&path, 16) {
            Ok(fleet) => compare("trace", &fleet),
            Err(error) => println!("TRACE={path}: {error}"),
        }
    }
    countless();
}

/// One shape, all indexes.
fn compare(shape: &str, fleet: &Fleet) {
    let mut arms = all(fleet.pods);
    let figures = measure(fleet, &mut arms);
    println!(
        "{shape}: {} chains, {} pods, {} holder-blocks",
        fleet.chains.len(),
        fleet.pods,
        figures[0].holder_blocks
    );
    for (arm, figures) in arms.iter().zip(&figures) {
        println!("  {:18} {figures}", arm.name());
    }
    let [ours, smg, dynamo, positional] = &figures[..] else { return };
    type Figure = fn(&Figures) -> f64;
    let bars: [(&str, Figure, f64); 6] = [
        ("cold_p50", |it| it.cold_ns[0], 1.0),
        ("cold_p99", |it| it.cold_ns[1], 1.0),
        ("warm_p50", |it| it.warm_ns[0], 1.0),
        ("warm_p99", |it| it.warm_ns[1], 1.0),
        ("bytes", |it| it.bytes_per_holder_block, 0.5),
        ("store_time", |it| 1.0 / it.blocks_per_s, 1.0),
    ];
    for (name, figure, limit) in bars {
        bar(&format!("{shape}_{name}_to_smg"), figure(ours) / figure(smg), limit);
    }
    // Twice as fast as Dynamo's faster one of those that answer rightly. The positional one needs
    // engine hashes of Dynamo's own making, which stock vLLM does not send.
    let right: Vec<_> = [dynamo, positional].into_iter().filter(|it| it.wrong == 0).collect();
    let fastest = |figure: fn(&Figures) -> f64| {
        right.iter().map(|it| figure(it)).fold(f64::INFINITY, f64::min)
    };
    bar(&format!("{shape}_cold_p50_to_dynamo"), ours.cold_ns[0] / fastest(|it| it.cold_ns[0]), 0.5);
    bar(&format!("{shape}_cold_p99_to_dynamo"), ours.cold_ns[1] / fastest(|it| it.cold_ns[1]), 0.5);
    bar(&format!("{shape}_warm_p50_to_dynamo"), ours.warm_ns[0] / fastest(|it| it.warm_ns[0]), 0.5);
    bar(&format!("{shape}_wrong"), ours.wrong as f64, 0.0);
}

fn all(pods: usize) -> Vec<Box<dyn Arm>> {
    vec![
        Box::new(Exact::new(pods)),
        Box::new(Smg::new(pods)),
        Box::new(Dynamo::compressed(pods)),
        Box::new(Dynamo::positional(pods)),
    ]
}

/// What the index says it takes, beside what the process grew by.
fn rss(holder_blocks: usize) {
    let fleet = Fleet::shared_prompts(holder_blocks, 64, 4);
    let events: Vec<_> = fleet.stores().map(|store| (store.pod, Exact::event(&store))).collect();
    let before = measure::rss();
    let exact = Exact::new(fleet.pods);
    events.iter().for_each(|(pod, event)| exact.apply(*pod, event));
    let grown = (measure::rss() - before) as f64;
    let said = exact.index.bytes() as f64;
    println!("rss: grew by {:.1} MiB, bytes() says {:.1}", grown / 1048576.0, said / 1048576.0);
    bar("bytes_off_rss", (said / grown - 1.0).abs(), 0.1);
}

/// The case in which an index that compares counts says 4: [1, 2, 3, 4] is held by one pod,
/// [1, 92, 93, 4] by nobody (its parts by others).
fn countless() {
    let chain =
        |blocks: [u64; 4], pod| fleet::Chain { blocks: blocks.to_vec(), holders: vec![pod] };
    let chains = vec![chain([1, 2, 3, 4], 0), chain([9, 92, 93, 4], 1)];
    let fleet = Fleet { pods: 2, chains };
    let stores: Vec<_> = fleet.stores().collect();
    for mut arm in all(2) {
        arm.store(&stores);
        arm.ask(&[1, 92, 93, 4]);
        arm.look_up(0);
        println!("[1,92,93,4] against [1,2,3,4]: {} says {}, truth 1", arm.name(), arm.depth(0));
    }
}

fn bar(name: &str, measured: f64, limit: f64) {
    let verdict = if measured <= limit { "ok" } else { "short" };
    println!("BAR kv_{name} {measured:.3} <= {limit} {verdict}");
}
