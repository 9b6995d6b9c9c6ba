//! Random interleavings.

use kv_index::{ExactSettings, Medium};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{Op, World};

fn path(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    (0..4_u8, vec(0..2_u8, 0..longest)).prop_map(|(first, rest)| [vec![first], rest].concat())
}

fn medium() -> impl Strategy<Value = Medium> {
    prop_oneof![8 => Just(Medium::Gpu), 1 => Just(Medium::Cpu), 1 => Just(Medium::Storage)]
}

fn op(pods: usize, longest: usize) -> impl Strategy<Value = Op> {
    let store = (0..pods, path(longest), 0..longest, medium(), prop::bool::weighted(0.1)).prop_map(
        |(pod, path, from, medium, is_announcement)| Op::Store {
            pod,
            path,
            from,
            medium,
            is_announcement,
        },
    );
    let whole = (0..pods, path(longest)).prop_map(|(pod, path)| Op::Store {
        pod,
        path,
        from: 0,
        medium: Medium::Gpu,
        is_announcement: false,
    });
    let offload = (0..pods, path(longest), 0..longest, medium())
        .prop_map(|(pod, path, from, medium)| Op::Offload { pod, path, from, medium });
    let remove = (0..pods, path(longest), 0..longest, medium(), any::<bool>()).prop_map(
        |(pod, path, from, medium, is_reversed)| Op::Remove {
            pod,
            path,
            from,
            medium,
            is_reversed,
        },
    );
    let truncate = (0..pods, path(longest), 0..longest)
        .prop_map(|(pod, path, from)| Op::Truncate { pod, path, from });
    prop_oneof![
        8 => store,
        8 => whole,
        2 => offload,
        8 => remove,
        1 => truncate,
        1 => (0..pods).prop_map(|pod| Op::Clear { pod }),
        1 => (0..pods).prop_map(|pod| Op::Die { pod }),
        1 => (0..pods, path(longest)).prop_map(|(pod, path)| Op::Stale { pod, path }),
    ]
}

fn play(world: &mut World, ops: &[Op]) {
    for op in ops {
        world.run(op);
    }
    world.check();
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_equals_the_oracle_and_is_never_above_it(ops in vec(op(5, 6), 1..60)) {
        let mut world = World::new(5, 1, ExactSettings::default());
        for op in &ops {
            world.run(op);
            world.check_last();
        }
        world.check();
        world.end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn long_chains_and_many_pods_change_nothing(ops in vec(op(30, 12), 1..80)) {
        play(&mut World::new(30, 97, ExactSettings::default()), &ops);
    }

    #[test]
    fn under_a_budget_it_is_never_above_the_oracle(ops in vec(op(8, 12), 20..80)) {
        let settings = ExactSettings { bytes: 150_000, pod_bytes: 60_000 };
        play(&mut World::new(8, 97, settings), &ops);
    }
}
