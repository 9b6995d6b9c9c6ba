//! The exact KV index beside its peers: speed, memory and truth, in one run.
//!
//! `kv-index-bench [HOLDER_BLOCKS] [SHAPE...]` with the shapes `rss`, `a`, `b` and `trace` (all of
//! them unless some are named); `TRACE=path` is the Mooncake conversation trace.

mod arms;
mod fleet;
mod measure;

use arms::{Arm, Exact, Smg};
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
    let mut arms: Vec<Box<dyn Arm>> =
        vec![Box::new(Exact::new(fleet.pods)), Box::new(Smg::new(fleet.pods))];
    let figures = measure(fleet, &mut arms);
    println!(
        "{shape}: {} chains, {} pods, {} holder-blocks",
        fleet.chains.len(),
        fleet.pods,
        figures[0].holder_blocks
    );
    for (arm, figures) in arms.iter().zip(&figures) {
        println!("  {:8} {figures}", arm.name());
    }
    let [ours, smg] = [&figures[0], &figures[1]];
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
    bar(&format!("{shape}_wrong"), ours.wrong as f64, 0.0);
}

/// What the index says it takes, beside what the process grew by.
fn rss(holder_blocks: usize) {
    let fleet = Fleet::shared_prompts(holder_blocks, 64, 4);
    let events: Vec<_> =
        fleet.stores().map(|store| (store.pod, Exact::event(&store))).collect();
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
    let chain = |blocks: [u64; 4], pod| fleet::Chain { blocks: blocks.to_vec(), holders: vec![pod] };
    let chains = vec![chain([1, 2, 3, 4], 0), chain([9, 92, 93, 4], 1)];
    let fleet = Fleet { pods: 2, chains };
    let stores: Vec<_> = fleet.stores().collect();
    let arms: [Box<dyn Arm>; 2] = [Box::new(Exact::new(2)), Box::new(Smg::new(2))];
    for mut arm in arms {
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
