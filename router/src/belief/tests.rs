use std::sync::Arc;

use kv_index::{Slot, Slots};

use super::*;
use crate::feed::kv_events::{Doubt, KvStatus};
use crate::pool::{EngineHints, Health, Pod, Record, Role};

fn endpoint(slot: Slot, trust: Trust) -> Endpoint {
    let name: Arc<str> = "a".into();
    let (role, kv_ports, rank) = (Role::Both, None, None);
    let pod = Pod {
        uid: name.clone(),
        name,
        addr: ([10, 0, 0, 1], 8000).into(),
        role,
        topology: None,
        kv_ports,
        rank,
    };
    let (health, models, engine) = (Health::Ready, Arc::default(), EngineHints::default());
    let kv_events = Arc::new(KvStatus::of(trust));
    let (record, is_cordoned) = (Record::default(), false);
    Endpoint { pod, slot, health, is_cordoned, models, engine, kv_events, record }
}

/// What is believed of a pod that told of 10 blocks and was sent `sent` of them `age_ms` ago.
fn belief(trust: Trust, approximate: usize, age_ms: u64) -> (u32, u32) {
    let slot = Slots::default().acquire();
    let (mut exact, mut overlap) = (Overlap::default(), Overlap::default());
    exact.set(slot, 10, LastUse::AtMs(0), None);
    overlap.set(slot, approximate, LastUse::AtMs(100_000 - age_ms), None);
    let beliefs = Beliefs { exact: Some(&exact), approximate: &overlap, now_ms: 100_000 };
    let belief = beliefs.of(&endpoint(slot, trust));
    assert_eq!(belief.trust, trust);
    (belief.known_blocks, belief.likely_blocks)
}

#[test]
fn the_table() {
    let uncertain = Trust::Uncertain(Doubt::LateStart);
    for (trust, approximate, age_ms, known_and_likely) in [
        (Trust::Exact, 30, 60_000, (10, 10)),
        (Trust::Exact, 30, 500, (10, 30)),
        (Trust::Exact, 4, 500, (10, 10)),
        (uncertain, 30, 60_000, (10, 20)),
        (uncertain, 4, 60_000, (10, 10)),
        (Trust::CatchingUp, 30, 60_000, (10, 30)),
        (Trust::CatchingUp, 4, 60_000, (10, 10)),
        (Trust::Retelling, 30, 60_000, (0, 30)),
        (Trust::Retelling, 4, 60_000, (0, 5)),
        (Trust::Approximate, 30, 60_000, (30, 30)),
        (Trust::Approximate, 4, 60_000, (4, 4)),
    ] {
        assert_eq!(
            belief(trust, approximate, age_ms),
            known_and_likely,
            "{trust:?} {approximate} {age_ms}"
        );
    }
}

#[test]
fn without_blocks_to_look_up_a_pod_is_known_by_what_it_was_sent() {
    let slot = Slots::default().acquire();
    let mut approximate = Overlap::default();
    approximate.set(slot, 7, LastUse::OnItsWay, None);
    let beliefs = Beliefs { exact: None, approximate: &approximate, now_ms: 1 };
    let want = Belief {
        known_blocks: 7,
        likely_blocks: 7,
        is_on_its_way: true,
        trust: Trust::Approximate,
    };
    assert_eq!(beliefs.of(&endpoint(slot, Trust::Exact)), want);
}
