use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn it_equals_a_set(ops in proptest::collection::vec((0..40_u32, 0..4_u32, any::<bool>()), 0..600)) {
        let (mut table, mut set) = (Table::default(), BTreeSet::new());
        for (tag, value, is_insert) in ops {
            // Tags at both ends, so that buckets overflow and the search wraps around.
            let tag = if tag < 20 { tag } else { (1 << TAG_BITS) - 1 - tag % 20 };
            let found = table.find(tag, |found| found == value);
            prop_assert_eq!(found.is_some(), set.contains(&(tag, value)));
            match found {
                None if is_insert => {
                    table.insert(tag, value);
                    set.insert((tag, value));
                }
                Some((at, _)) if !is_insert => {
                    table.remove(at);
                    set.remove(&(tag, value));
                }
                _ => {}
            }
            prop_assert_eq!(table.len, set.len());
        }
        for (tag, value) in set {
            prop_assert!(table.find(tag, |found| found == value).is_some());
        }
    }
}

#[test]
fn it_keeps_everything_while_it_grows_and_shrinks() {
    for seed in 0..40_u32 {
        // Crowded at the end, so that what does not fit wraps around.
        let mut table = Table::default();
        let tag = |value: u32| {
            let spread = (value + seed * 7919).wrapping_mul(0x9e37_79b9) >> (32 - TAG_BITS);
            if value.is_multiple_of(50) { (1 << TAG_BITS) - 1 - spread % 4096 } else { spread }
        };
        for value in 0..6_000 {
            table.insert(tag(value), value);
            let some = (0..=value).step_by(1 + value as usize / 20);
            for value in some {
                assert!(table.find(tag(value), |found| found == value).is_some());
            }
        }
        let is_there = |table: &Table, value| table.find(tag(value), |found| found == value);
        assert!((0..6_000).all(|value| is_there(&table, value).is_some()));
        let full = table.bytes();
        assert!(full < 6_000 * 12, "{full} bytes");
        for value in 0..5_900 {
            let (at, _) = is_there(&table, value).expect("it was there");
            table.remove(at);
        }
        assert!((0..6_000).all(|value| is_there(&table, value).is_some() == (value >= 5_900)));
        assert!(table.bytes() < full / 4, "{} bytes", table.bytes());
    }
}
